{{/* Who may talk to whom. A policy takes (root, part, ingress, egress), the last two as YAML text; what is empty is closed. */}}

{{- define "rerank.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "rerank.fullname" .root }}-{{ .part | default "nothing" }}
  {{- include "rerank.annotations" (dict "root" .root) }}
  labels:
    {{- include "rerank.labels" (pick . "root" "part") | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "rerank.selector" (pick . "root" "part") | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- with .ingress | default "" | trim }}
  ingress:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with .egress | default "" | trim }}
  egress:
    {{- . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Pods of ours as a peer: (root, part). */}}
{{- define "rerank.peer" -}}
- podSelector:
    matchLabels:
      {{- include "rerank.selector" . | nindent 6 }}
{{- end }}

{{- define "rerank.scrapers" -}}
{{- if ne .Values.monitoring.scrape "none" }}
{{- with .Values.networkPolicy.prometheus }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "rerank.toDNS" -}}
- ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .Values.networkPolicy.dns }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Names of variables whose URL a download connects to. */}}
{{- define "rerank.isEndpoint" -}}
{{- if regexMatch "^((HTTPS?|ALL)_PROXY|AWS_ENDPOINT_URL(_S3)?|FSSPEC_S3_ENDPOINT_URL|HF_ENDPOINT)$" (upper .) }}yes{{ end -}}
{{- end }}

{{/* To registries, hubs and buckets: port 443, the ports of proxies and endpoints in the environment, and the cloud's identity:
(root, env, serviceAccount). */}}
{{- define "rerank.toHTTPS" -}}
{{- $ports := list "443" }}
{{- range $each := .env }}
{{- if and (include "rerank.isEndpoint" $each.name) (get $each "value") }}
{{- $stated := regexFind ":[0-9]+(/.*)?$" $each.value | regexFind "[0-9]+" }}
{{- $ports = append $ports ($stated | default (ternary "80" "443" (hasPrefix "http:" $each.value))) }}
{{- end }}
{{- end }}
{{ include "rerank.toDNS" .root }}
- ports:
    {{- range $ports | uniq }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- if hasKey (.serviceAccount.annotations | default dict) "iam.gke.io/gcp-service-account" }}
- ports: [{port: 80, protocol: TCP}, {port: 988, protocol: TCP}] # GKE's metadata server, in both of its places
  to:
    - ipBlock: {cidr: 169.254.169.254/32}
    - ipBlock: {cidr: 169.254.169.252/32}
{{- end }}
{{- if .root.Values.networkPolicy.eksPodIdentity }}
- ports: [{port: 80, protocol: TCP}]
  to:
    - ipBlock: {cidr: 169.254.170.23/32}
    - ipBlock: {cidr: "fd00:ec2::23/128"}
{{- end }}
{{- end }}

{{- define "rerank.toGateways" -}}
- ports: [{port: http, protocol: TCP}]
  {{- with .Values.networkPolicy.clients }}
  from:
    {{- toYaml . | nindent 4 }}
    {{- include "rerank.scrapers" $ | indent 4 }}
    {{- include "rerank.peer" (dict "root" $ "part" "test") | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "rerank.fromGateways" -}}
{{ include "rerank.toDNS" . }}
{{- if .Values.worker.enabled }}
- ports:
    {{- range $port := include "rerank.allWorkerPorts" . | fromJsonArray }}
    - {port: {{ $port.number }}, protocol: TCP}
    {{- end }}
  to:
    {{- include "rerank.peer" (dict "root" . "part" "worker") | nindent 4 }}
{{- end }}
{{- if .Values.redis.enabled }}
- ports: [{port: 6379, protocol: TCP}]
  to:
    {{- include "rerank.peer" (dict "root" . "part" "redis") | nindent 4 }}
{{- else if .Values.externalRedis.url }}
- ports:
    {{- range .Values.externalRedis.ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .Values.networkPolicy.externalRedis }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- if .Values.gateway.settings.RERANK_IMAGE_URLS }}
- ports: [{port: 443, protocol: TCP}]
  to: # the internet, and nothing that is not the internet
    - ipBlock:
        cidr: 0.0.0.0/0
        except:
          {{- toYaml .Values.networkPolicy.privateRanges | nindent 10 }}
    - ipBlock: {cidr: "2000::/3"}
{{- end }}
{{- with .Values.networkPolicy.gatewayEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The ports of both tracks' workers, as JSON. */}}
{{- define "rerank.allWorkerPorts" -}}
{{- $most := max .Values.worker.workersPerGpu (include "rerank.workerOf" (dict "root" . "track" (ternary "canary" "stable" .Values.canary.enabled)) | fromJson).workersPerGpu -}}
{{- include "rerank.workerPorts" (dict "workersPerGpu" $most) -}}
{{- end }}

{{- define "rerank.toWorkers" -}}
- ports:
    {{- range $port := include "rerank.allWorkerPorts" . | fromJsonArray }}
    - {port: {{ $port.number }}, protocol: TCP}
    {{- end }}
  from:
    {{- include "rerank.peer" (dict "root" . "part" "gateway") | nindent 4 }}
    {{- include "rerank.scrapers" . | indent 4 }}
{{- end }}

{{/* A worker's pod asks nobody for anything, but for its checkpoint. */}}
{{- define "rerank.fromWorkers" -}}
{{- $canary := ternary (mergeOverwrite (deepCopy .Values.model) .Values.canary.model) .Values.model .Values.canary.enabled }}
{{- if or (include "rerank.modelLoads" (dict "model" .Values.model)) (include "rerank.modelLoads" (dict "model" $canary)) }}
{{ include "rerank.toHTTPS" (dict "root" . "env" .Values.model.download.extraEnv "serviceAccount" .Values.worker.serviceAccount) }}
{{- end }}
{{- with .Values.networkPolicy.workerEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "rerank.toRedis" -}}
- ports: [{port: redis, protocol: TCP}]
  from:
    {{- include "rerank.peer" (dict "root" . "part" "gateway") | nindent 4 }}
{{- end }}

{{- define "rerank.fromTrainer" -}}
{{ include "rerank.toHTTPS" (dict "root" . "env" .Values.trainer.extraEnv "serviceAccount" .Values.trainer.serviceAccount) }}
{{- with .Values.networkPolicy.trainerEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "rerank.fromTest" -}}
{{ include "rerank.toDNS" . }}
- ports: [{port: 8000, protocol: TCP}]
  to:
    {{- include "rerank.peer" (dict "root" . "part" "gateway") | nindent 4 }}
{{- end }}

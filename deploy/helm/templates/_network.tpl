{{/* Who may talk to whom. A policy takes (root, part, ingress, egress), the last two as YAML text; what is empty is closed. */}}

{{- define "rerank.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "rerank.fullname" .root }}-{{ .part | default "nothing" }}
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
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
  {{- with .Values.networkPolicy.dns }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* To whatever answers on port 443: registries, hubs, buckets. */}}
{{- define "rerank.toHTTPS" -}}
{{ include "rerank.toDNS" . }}
- ports: [{port: 443, protocol: TCP}]
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
{{ include "rerank.toHTTPS" . }}
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
{{ include "rerank.toHTTPS" . }}
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

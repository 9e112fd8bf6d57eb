{{/* The workers of a track: (root, track, own, model). */}}
{{- define "rerank.worker" -}}
{{- $part := dict "root" .root "part" "worker" "track" .track "own" .own -}}
{{- $name := include "rerank.name" $part -}}
{{- $image := include "rerank.workerImage" $part -}}
{{- $model := dict "root" .root "model" .model "own" .own "image" $image "checksums" (printf "%s-checksums" $name) -}}
{{- $values := .root.Values -}}
{{- $probes := include "rerank.workerProbes" . -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  {{- include "rerank.annotations" (dict "root" .root "own" (include "rerank.keptReplicas" $part | fromYaml)) }}
  labels:
    {{- include "rerank.labels" $part | nindent 4 }}
spec:
  {{- with include "rerank.replicas" $part }}
  replicas: {{ . }}
  {{- end }}
  revisionHistoryLimit: 5
  progressDeadlineSeconds: {{ add (mul .own.startupSeconds .own.workersPerGpu) (ternary .model.download.timeoutSeconds 0 (include "rerank.modelLoads" $model | eq "yes")) 600 }}
  strategy:
    {{- include "rerank.workerStrategy" .own | nindent 4 }}
  selector:
    matchLabels:
      {{- include "rerank.selector" $part | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "rerank.podLabels" $part | nindent 8 }}
      annotations:
        kubectl.kubernetes.io/default-container: worker
        {{- with include "rerank.scrapeAnnotations" (dict "root" .root "port" 8001) }}
        {{- . | trim | nindent 8 }}
        {{- end }}
        {{- with .own.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "rerank.serviceAccount" $part }}
      {{- include "rerank.podRights" $part | nindent 6 }}
      {{- with include "rerank.podPlace" $part }}
      {{- . | trim | nindent 6 }}
      {{- end }}
      {{- include "rerank.spread" $part | nindent 6 }}
      terminationGracePeriodSeconds: {{ include "rerank.terminationSeconds" .own }}
      {{- if or (include "rerank.modelLoads" $model) .own.initContainers }}
      initContainers:
        {{- if include "rerank.modelLoads" $model }}
        {{- include "rerank.modelContainers" $model | nindent 8 }}
        {{- end }}
        {{- with .own.initContainers }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      containers:
        - name: worker
          image: {{ $image }}
          imagePullPolicy: {{ .own.image.pullPolicy }}
          args:
            - worker
            - --host={{ $values.listen }}
            - --port=8001
            - --insecure # it has no keys: the NetworkPolicy lets gateways in, and nobody else
            {{- range .own.extraArgs }}
            - {{ . | quote }}
            {{- end }}
          env:
            {{- include "rerank.modelEnvironment" $model | nindent 12 }}
            {{- include "rerank.workerEnvironment" .own | nindent 12 }}
            {{- with include "rerank.settings" .own }}
            {{- . | trim | nindent 12 }}
            {{- end }}
          {{- with .own.extraEnvFrom }}
          envFrom:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            {{- range $port := include "rerank.workerPorts" .own | fromJsonArray }}
            - {name: {{ $port.name }}, containerPort: {{ $port.number }}}
            {{- end }}
          startupProbe: # what is served: answered once the model is loaded and its golden pairs came out right, by the last worker last
            {{- include "rerank.probe" (dict "own" .own "name" "startup" "probes" $probes) | nindent 12 }}
          readinessProbe:
            {{- include "rerank.probe" (dict "own" .own "name" "readiness" "probes" $probes) | nindent 12 }}
          livenessProbe: # fails where the engine has work and finishes none of it, not where it is busy
            {{- include "rerank.probe" (dict "own" .own "name" "liveness" "probes" $probes) | nindent 12 }}
          {{- with include "rerank.lifecycle" $part }}
          {{- . | trim | nindent 10 }}
          {{- end }}
          resources:
            {{- include "rerank.gpuResources" .own | nindent 12 }}
          terminationMessagePolicy: FallbackToLogsOnError
          {{- with .own.securityContext }}
          securityContext:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            - {name: scratch, mountPath: /scratch}
            - {name: shm, mountPath: /dev/shm}
            {{- if include "rerank.modelMounted" $model }}
            - {name: model, mountPath: /models, readOnly: true}
            {{- end }}
            {{- with .own.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
        {{- with .own.sidecars }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: {{ .own.scratch }}}
        - name: scratch
          emptyDir: {sizeLimit: {{ .own.scratch }}}
        - name: shm
          emptyDir: {medium: Memory, sizeLimit: {{ .own.sharedMemory }}}
        {{- if include "rerank.modelMounted" $model }}
        {{- include "rerank.modelVolume" $model | nindent 8 }}
        {{- end }}
        {{- with .own.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}

{{/* The ports of a pod's workers, as JSON: the first has the name that a single one has. (workersPerGpu). */}}
{{- define "rerank.workerPorts" -}}
{{- $ports := list -}}
{{- range $number := until (int .workersPerGpu) -}}
{{- $ports = append $ports (dict "name" (ternary "http" (printf "http-%d" (add1 $number)) (eq $number 0)) "number" (add 8001 $number)) -}}
{{- end -}}
{{- toJson $ports -}}
{{- end }}

{{/* The values of a track's workers, as JSON: (root, track). */}}
{{- define "rerank.workerOf" -}}
{{- $values := .root.Values -}}
{{- ternary (mergeOverwrite (deepCopy $values.worker) $values.canary.worker) $values.worker (eq .track "canary") | toJson -}}
{{- end }}

{{/* A GPU more than there are pods is seldom free, and a new pod would wait for it for ever: there the old one goes first. */}}
{{- define "rerank.workerStrategy" -}}
{{- $oldFirst := gt (int .gpu.count) 0 -}}
{{- $default := dict "maxSurge" (ternary 0 1 $oldFirst) "maxUnavailable" (ternary 1 0 $oldFirst) -}}
{{ toYaml (.strategy | default (dict "type" "RollingUpdate" "rollingUpdate" $default)) }}
{{- end }}

{{/* Compiled kernels go to HOME, and engines keep their habits to themselves. */}}
{{- define "rerank.workerEnvironment" -}}
- name: HOME
  value: /scratch
{{- if gt (int .workersPerGpu) 1 }}
- name: RERANK_PROCESSES
  value: {{ .workersPerGpu | quote }}
{{- end }}
{{- if eq (include "rerank.engine" .) "vllm" }}
- name: VLLM_NO_USAGE_STATS
  value: "1"
{{- if and (gt (int .gpu.count) 1) (not (hasKey .settings "RERANK_ENGINE_TENSOR_PARALLEL_SIZE")) }}
- name: RERANK_ENGINE_TENSOR_PARALLEL_SIZE
  value: {{ .gpu.count | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* What a container asks for, its GPUs among it: (resources, gpu). */}}
{{- define "rerank.gpuResources" -}}
{{- $resources := deepCopy .resources -}}
{{- if .gpu.count -}}
{{- $_ := set $resources "limits" (merge (dict .gpu.resource .gpu.count) ($resources.limits | default dict)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}

{{- define "rerank.workerProbes" -}}
startup:
  httpGet: {path: /info, port: {{ (include "rerank.workerPorts" .own | fromJsonArray | last).name }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ div (add (mul .own.startupSeconds .own.workersPerGpu) 4) 5 }}
readiness:
  httpGet: {path: /health/ready, port: http}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 3
liveness:
  httpGet: {path: /health/live, port: http}
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 6
{{- end }}

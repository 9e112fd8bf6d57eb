{{/* The gateways of a track: (root, track, own). */}}
{{- define "rerank.gateway" -}}
{{- $part := dict "root" .root "part" "gateway" "track" .track "own" .own -}}
{{- $values := .root.Values -}}
{{- $probes := include "rerank.gatewayProbes" . -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "rerank.name" $part }}
  {{- include "rerank.annotations" (dict "root" .root "own" (include "rerank.keptReplicas" $part | fromYaml)) }}
  labels:
    {{- include "rerank.labels" $part | nindent 4 }}
spec:
  {{- with include "rerank.replicas" $part }}
  replicas: {{ . }}
  {{- end }}
  revisionHistoryLimit: 5
  strategy:
    {{- toYaml .own.strategy | nindent 4 }}
  selector:
    matchLabels:
      {{- include "rerank.selector" $part | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "rerank.podLabels" $part | nindent 8 }}
      annotations:
        kubectl.kubernetes.io/default-container: gateway
        {{- with include "rerank.scrapeAnnotations" (dict "root" .root "port" 8000) }}
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
      {{- with .own.initContainers }}
      initContainers:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: gateway
          image: {{ include "rerank.image" (dict "root" .root "image" .own.image) }}
          imagePullPolicy: {{ .own.image.pullPolicy }}
          args:
            - gateway
            - --host={{ $values.listen }}
            - --port=8000
            {{- if not $values.auth.enabled }}
            - --insecure
            {{- end }}
            {{- range .own.extraArgs }}
            - {{ . | quote }}
            {{- end }}
          env:
            {{- include "rerank.gatewayEnvironment" $part | nindent 12 }}
            {{- with include "rerank.settings" .own }}
            {{- . | trim | nindent 12 }}
            {{- end }}
          {{- with .own.extraEnvFrom }}
          envFrom:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            - {name: http, containerPort: 8000}
          startupProbe:
            {{- include "rerank.probe" (dict "own" .own "name" "startup" "probes" $probes) | nindent 12 }}
          readinessProbe:
            {{- include "rerank.probe" (dict "own" .own "name" "readiness" "probes" $probes) | nindent 12 }}
          livenessProbe:
            {{- include "rerank.probe" (dict "own" .own "name" "liveness" "probes" $probes) | nindent 12 }}
          {{- with include "rerank.lifecycle" $part }}
          {{- . | trim | nindent 10 }}
          {{- end }}
          resources:
            {{- toYaml .own.resources | nindent 12 }}
          terminationMessagePolicy: FallbackToLogsOnError
          {{- with .own.securityContext }}
          securityContext:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          volumeMounts:
            {{- include "rerank.gatewayMounts" $part | nindent 12 }}
            {{- with .own.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
        {{- with .own.sidecars }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      volumes:
        {{- include "rerank.gatewayVolumes" $part | nindent 8 }}
        {{- with .own.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}

{{- define "rerank.gatewayProbes" -}}
startup:
  httpGet: {path: /health/live, port: http}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 60
readiness:
  httpGet: {path: /health/ready, port: http}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
liveness:
  httpGet: {path: /health/live, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

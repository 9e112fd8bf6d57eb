{{/* What objects are called, labelled and selected by, and which images they run. */}}

{{- define "rerank.fullname" -}}
{{- $default := ternary .Release.Name (printf "%s-rerank" .Release.Name) (contains "rerank" .Release.Name) -}}
{{- .Values.fullnameOverride | default $default | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* The name of a part's object: (root, part, track). A canary's says so. */}}
{{- define "rerank.name" -}}
{{ include "rerank.fullname" .root }}-{{ .part }}{{ if eq .track "canary" }}-canary{{ end }}
{{- end }}

{{/* Labels of every object: (root, part, and track where there are two). */}}
{{- define "rerank.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ .root.Chart.Name }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "rerank.selector" . }}
{{- with .root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Annotations of an object: those of every object, and its own, which go before them: (root, own). */}}
{{- define "rerank.annotations" -}}
{{- with merge (dict) (.own | default dict) .root.Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{/* Labels of a pod: none that a new version of the chart would change, for that replaces every pod. (root, part, track, own). */}}
{{- define "rerank.podLabels" -}}
{{ include "rerank.selector" . }}
{{- with merge (dict) (.own.podLabels | default dict) .root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels that select a part's pods; they never change. */}}
{{- define "rerank.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .part }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .track }}
track: {{ . }}
{{- end }}
{{- end }}

{{/* An image's reference: (root, image). */}}
{{- define "rerank.image" -}}
{{- $repository := .image.repository -}}
{{- with .root.Values.global.imageRegistry -}}
{{- $repository = printf "%s/%s" . (regexReplaceAll "^(localhost|[^/]*[.:][^/]*)/" $repository "") -}}
{{- end -}}
{{ $repository }}{{ if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The worker's image: vLLM's, or the small one where torch runs on a CPU. (root, own). */}}
{{- define "rerank.workerImage" -}}
{{- $small := and (eq (include "rerank.engine" .own) "torch") (not .own.gpu.count) -}}
{{- $default := printf "ghcr.io/gmr-rerank/worker%s" (ternary "-cpu" "" $small) -}}
{{- $image := merge (dict "repository" (.own.image.repository | default $default)) .own.image -}}
{{ include "rerank.image" (dict "root" .root "image" $image) }}
{{- end }}

{{- define "rerank.engine" -}}
{{ .settings.RERANK_ENGINE | default "torch" }}
{{- end }}

{{- define "rerank.serviceAccount" -}}
{{ .own.serviceAccount.name | default (ternary (include "rerank.name" (dict "root" .root "part" .part "track" "stable")) "default" .own.serviceAccount.create) }}
{{- end }}

{{/* The service's URL in the cluster. */}}
{{- define "rerank.inside" -}}
http://{{ include "rerank.fullname" . }}.{{ .Release.Namespace }}.svc{{ if ne (int .Values.service.port) 80 }}:{{ .Values.service.port }}{{ end }}
{{- end }}

{{/* Its first URL outside of the cluster: that of the Ingress, or of the HTTPRoute, whose Gateway has the certificate. Empty without both. */}}
{{- define "rerank.outside" -}}
{{- if and .Values.ingress.enabled .Values.ingress.hosts -}}
{{ ternary "https" "http" (ne .Values.ingress.tlsSecret "") }}://{{ first .Values.ingress.hosts }}{{ .Values.ingress.path | trimSuffix "/" }}
{{- else if and .Values.httpRoute.enabled .Values.httpRoute.hostnames -}}
https://{{ first .Values.httpRoute.hostnames }}
{{- end -}}
{{- end }}

{{/* What the chart keeps its own secrets under. */}}
{{- define "rerank.secret" -}}
{{ include "rerank.fullname" . }}-secrets
{{- end }}

{{- define "rerank.hasOwnSecrets" -}}
{{- $key := and .Values.auth.enabled (not .Values.auth.existingSecret) -}}
{{- $password := and .Values.redis.enabled (not .Values.redis.existingSecret) -}}
{{- if or $key (not .Values.cacheSecret.existingSecret) $password }}yes{{ end -}}
{{- end }}

{{/* What all pods have in common. Services' addresses are kept out of their environment, where RERANK_PORT and its like would be
taken for settings that do not exist. */}}

{{/* A pod's identity and rights: (root, own). */}}
{{- define "rerank.podRights" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .own.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .own.schedulerName }}
schedulerName: {{ . }}
{{- end }}
{{- with .own.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where a pod may be: (own). */}}
{{- define "rerank.podPlace" -}}
{{- with .own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* How a part's pods are spread: (root, part, track, own). */}}
{{- define "rerank.spread" -}}
topologySpreadConstraints:
{{- with .own.topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
{{- else }}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "rerank.selector" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}
{{- end }}

{{- define "rerank.isScaled" -}}
{{- if and (eq .track "stable") .own.autoscaling.enabled }}yes{{ end -}}
{{- end }}

{{/* The number of a Deployment's pods; empty where an autoscaler alone decides: (root, part, track, own).

Where a release had a number, and now has an autoscaler, taking the number away would make it 1, Kubernetes' default, until the
autoscaler notices. So the number that is there stays in the release, in this upgrade and the next ones. Where there was an autoscaler from
the beginning, the release never had a number, and a rollback leaves it alone, too. */}}
{{- define "rerank.replicas" -}}
{{- if not (include "rerank.isScaled" .) -}}
{{ .own.replicas }}
{{- else -}}
{{- $name := include "rerank.name" . -}}
{{- $live := lookup "apps/v1" "Deployment" .root.Release.Namespace $name -}}
{{- $scaler := lookup "autoscaling/v2" "HorizontalPodAutoscaler" .root.Release.Namespace $name -}}
{{- if and (not $scaler) (.root.Capabilities.APIVersions.Has "keda.sh/v1alpha1") -}}
{{- $scaler = lookup "keda.sh/v1alpha1" "ScaledObject" .root.Release.Namespace $name -}}
{{- end -}}
{{- $kept := and $live (eq "kept" (dig "metadata" "annotations" "gmr-rerank/replicas" "" $live)) -}}
{{- if and $live (or $kept (not $scaler)) -}}
{{ max (int $live.spec.replicas) (int .own.autoscaling.minReplicas) }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* An annotation of a Deployment whose number of pods is that of the cluster when this release was made: (root, part, track, own). */}}
{{- define "rerank.keptReplicas" -}}
{{- if and (include "rerank.isScaled" .) (include "rerank.replicas" .) -}}
gmr-rerank/replicas: kept
{{- end -}}
{{- end }}

{{/* A value as the environment has it. Helm reads numbers as floats: 67108864 must not become 6.7108864e+07. */}}
{{- define "rerank.plain" -}}
{{- if not (kindIs "float64" .) }}{{ . }}{{ else if eq (floor .) . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end }}

{{- define "rerank.settings" }}
{{- range $name, $value := .settings }}
- name: {{ $name }}
  value: {{ include "rerank.plain" $value | quote }}
{{- end }}
{{- with .extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Seconds that a process takes to end, at most. */}}
{{- define "rerank.graceSeconds" -}}
{{ include "rerank.plain" (.settings.RERANK_GRACE_SECONDS | default 30) }}
{{- end }}

{{- define "rerank.drainSeconds" -}}
{{- include "rerank.plain" (ternary .settings.RERANK_DRAIN_SECONDS 5 (hasKey .settings "RERANK_DRAIN_SECONDS")) -}}
{{- end }}

{{/* Seconds from SIGTERM's cause to SIGKILL: what the hook, the drain and the work in flight need, and a little more. */}}
{{- define "rerank.terminationSeconds" -}}
{{- $needed := add .preStopSeconds (ceil (include "rerank.graceSeconds" . | float64)) 5 -}}
{{ .terminationGracePeriodSeconds | default $needed | int64 }}
{{- end }}

{{/* A pause before SIGTERM: Kubernetes' own from 1.30 on, before that a program's. (root, own). */}}
{{- define "rerank.lifecycle" -}}
{{- if .own.lifecycle }}
lifecycle:
  {{- toYaml .own.lifecycle | nindent 2 }}
{{- else }}
{{- with .own.preStopSeconds }}
lifecycle:
  preStop:
    {{- if semverCompare ">=1.30.0-0" $.root.Capabilities.KubeVersion.Version }}
    sleep: {seconds: {{ . }}}
    {{- else }}
    exec: {command: [sleep, {{ . | quote }}]}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A probe, with the fields that the values override: (own, name, probes as YAML text by their names). */}}
{{- define "rerank.probe" -}}
{{- $given := get (.own.probes | default dict) .name | default dict -}}
{{ mergeOverwrite (get (fromYaml .probes) .name) $given | toYaml }}
{{- end }}

{{/* Annotations by which a Prometheus without the operator finds a pod: (root, port). */}}
{{- define "rerank.scrapeAnnotations" -}}
{{- if eq .root.Values.monitoring.scrape "annotations" -}}
prometheus.io/scrape: "true"
prometheus.io/path: /metrics
prometheus.io/port: {{ .port | quote }}
{{- end }}
{{- end }}

{{/* What node drains spare of a part: (root, part, track, own). Pods that are not ready never hold a drain up. */}}
{{- define "rerank.pdb" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "rerank.name" . }}
  {{- include "rerank.annotations" (dict "root" .root) }}
  labels:
    {{- include "rerank.labels" . | nindent 4 }}
spec:
  {{- if .own.pdb.minAvailable }}
  minAvailable: {{ .own.pdb.minAvailable }}
  {{- else }}
  maxUnavailable: {{ .own.pdb.maxUnavailable }}
  {{- end }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "rerank.selector" . | nindent 6 }}
{{- end }}

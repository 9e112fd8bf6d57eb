{{/* Where a checkpoint comes from: what the worker is told, what is mounted, and what runs before it. All take (root, model, image,
own), of which `own` has the security contexts. A checkpoint lies under /models, which only what loads it can write to. */}}

{{- define "rerank.modelLoads" -}}
{{- if has .model.source (list "registry" "hub") }}yes{{ end -}}
{{- end }}

{{- define "rerank.modelMounted" -}}
{{- if ne .model.source "baked" }}yes{{ end -}}
{{- end }}

{{/* What the model is called when it is there: a name that ships, a folder, or the hub's id. */}}
{{- define "rerank.modelName" -}}
{{- $model := .model -}}
{{- if eq $model.source "baked" -}}
{{ $model.baked.name }}
{{- else if eq $model.source "registry" -}}
/models/registry/{{ trimPrefix "sha256:" $model.registry.digest }}
{{- else if eq $model.source "hub" -}}
{{ $model.hub.id }}
{{- else -}}
{{ printf "/models/%s" (get $model $model.source).path | trimSuffix "/" }}
{{- end -}}
{{- end }}

{{/* What people call it. */}}
{{- define "rerank.modelTitle" -}}
{{- $model := .model -}}
{{- if eq $model.source "registry" -}}
{{ $model.registry.name }}@{{ $model.registry.digest }}
{{- else if eq $model.source "hub" -}}
{{ $model.hub.id }} at {{ $model.hub.revision }}
{{- else if eq $model.source "pvc" -}}
what is on the claim {{ $model.pvc.claimName }}
{{- else if eq $model.source "image" -}}
{{ $model.image.reference }}
{{- else -}}
{{ $model.baked.name }}
{{- end -}}
{{- end }}

{{/* The folder that it lies in. */}}
{{- define "rerank.modelFolder" -}}
{{- if eq .model.source "hub" -}}
/models/models--{{ .model.hub.id | replace "/" "--" }}/snapshots/{{ .model.hub.revision }}
{{- else -}}
{{ include "rerank.modelName" . }}
{{- end -}}
{{- end }}

{{/* Nothing is asked of a network once a worker runs. */}}
{{- define "rerank.modelEnvironment" -}}
- name: RERANK_MODEL
  value: {{ include "rerank.modelName" . }}
{{- if eq .model.source "hub" }}
- name: RERANK_MODEL_REVISION
  value: {{ .model.hub.revision | quote }}
- name: RERANK_MODEL_CACHE
  value: /models
{{- end }}
{{- with .model.family }}
- name: RERANK_MODEL_FAMILY
  value: {{ . }}
{{- end }}
- name: HF_HUB_OFFLINE
  value: "1"
{{- end }}

{{- define "rerank.modelVolume" -}}
- name: model
  {{- if eq .model.source "pvc" }}
  persistentVolumeClaim: {claimName: {{ .model.pvc.claimName }}, readOnly: true}
  {{- else if eq .model.source "image" }}
  image: {reference: {{ .model.image.reference | quote }}, pullPolicy: IfNotPresent}
  {{- else if .model.download.existingClaim }}
  persistentVolumeClaim: {claimName: {{ .model.download.existingClaim }}}
  {{- else if .model.download.claim.create }}
  persistentVolumeClaim: {claimName: {{ include "rerank.fullname" .root }}-models}
  {{- else }}
  emptyDir: {sizeLimit: {{ .model.download.size }}}
  {{- end }}
{{- if and (eq .model.source "hub") .model.hub.sha256 }}
- name: checksums
  configMap: {name: {{ .checksums }}}
{{- end }}
{{- end }}

{{/* Loads the checkpoint, and compares it: with its manifest where it has one, and with the checksums that were given. */}}
{{- define "rerank.modelContainers" -}}
{{- $model := .model -}}
- name: load-model
  image: {{ .image }}
  imagePullPolicy: {{ .own.image.pullPolicy }}
  command: [timeout, --kill-after=10, "{{ $model.download.timeoutSeconds }}", gmr] # a try that hangs ends, and the next one goes on from it
  args:
    - models
    - pull
    {{- if eq $model.source "registry" }}
    - {{ $model.registry.name }}@{{ $model.registry.digest }}
    - --registry={{ $model.registry.url }}
    {{- else }}
    - {{ $model.hub.id }}
    - --revision={{ $model.hub.revision }}
    {{- with $model.family }}
    - --family={{ . }}
    {{- end }}
    {{- end }}
    - --cache=/models
  env:
    - name: HOME
      value: /scratch
    {{- with $model.download.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $model.download.existingSecret }}
  envFrom:
    - secretRef: {name: {{ . }}}
  {{- end }}
  resources:
    {{- toYaml $model.download.resources | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
  {{- with .own.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - {name: model, mountPath: /models}
    - {name: scratch, mountPath: /scratch}
    - {name: tmp, mountPath: /tmp}
{{- if and (eq $model.source "hub") $model.hub.sha256 }}
- name: check-model
  image: {{ .image }}
  imagePullPolicy: {{ .own.image.pullPolicy }}
  command: [sha256sum, --check, --strict, --quiet, /checksums/SHA256SUMS]
  workingDir: {{ include "rerank.modelFolder" . }}
  resources:
    {{- toYaml $model.download.resources | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
  {{- with .own.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - {name: model, mountPath: /models, readOnly: true}
    - {name: checksums, mountPath: /checksums, readOnly: true}
{{- end }}
{{- end }}

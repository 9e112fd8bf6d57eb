{{/* Training, in a pod of its own: a GPU a process, and, where it is to be published, the merge and the upload after it. */}}
{{- define "rerank.trainerPod" -}}
{{- $own := .Values.trainer -}}
{{- $part := dict "root" . "part" "trainer" "track" "stable" "own" $own -}}
{{- $run := (fromYaml $own.config).output | default "" -}}
serviceAccountName: {{ include "rerank.serviceAccount" $part }}
{{ include "rerank.podRights" $part }}
{{- include "rerank.podPlace" $part }}
restartPolicy: Never
{{- if $own.publish.registry }}
initContainers:
  {{- include "rerank.trainer" $part | nindent 2 }}
containers:
  - name: publish
    {{- include "rerank.trainerContainer" $part | nindent 4 }}
    args:
      - publish
      - {{ (fromYaml $own.config).model | quote }}
      - {{ $run | quote }}
      - /scratch/{{ $own.publish.name }}
      - --name={{ $own.publish.name }}
      - --registry={{ $own.publish.registry }}
      {{- with (fromYaml $own.config).revision }}
      - --revision={{ . }}
      {{- end }}
      {{- with $own.publish.golden }}
      - --golden={{ . }}
      {{- end }}
    resources:
      {{- toYaml $own.resources | nindent 6 }}
{{- else }}
containers:
  {{- include "rerank.trainer" $part | nindent 2 }}
{{- end }}
volumes:
  - name: config
    configMap: {name: {{ include "rerank.fullname" . }}-trainer}
  - name: data
    persistentVolumeClaim: {claimName: {{ $own.claimName }}}
  - name: scratch
    emptyDir: {}
  - name: tmp
    emptyDir: {}
  - name: shm
    emptyDir: {medium: Memory, sizeLimit: {{ $own.sharedMemory }}}
{{- end }}

{{- define "rerank.trainer" -}}
- name: train
  {{- include "rerank.trainerContainer" . | nindent 2 }}
  {{- if gt (int .own.gpu.count) 1 }}
  command: [torchrun, --standalone, --nproc_per_node={{ .own.gpu.count }}, -m, model_store.training]
  args: [/etc/rerank/train.yaml]
  {{- else }}
  args: [train, /etc/rerank/train.yaml]
  {{- end }}
  resources:
    {{- include "rerank.gpuResources" .own | nindent 4 }}
{{- end }}

{{- define "rerank.trainerContainer" -}}
image: {{ include "rerank.image" (dict "root" .root "image" .own.image) }}
imagePullPolicy: {{ .own.image.pullPolicy }}
workingDir: /data
env:
  - name: HOME
    value: /scratch
  - name: RERANK_MODEL_CACHE
    value: /scratch/models
  {{- with .own.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .own.existingSecret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
terminationMessagePolicy: FallbackToLogsOnError
{{- with .own.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - {name: config, mountPath: /etc/rerank, readOnly: true}
  - {name: data, mountPath: /data}
  - {name: scratch, mountPath: /scratch}
  - {name: tmp, mountPath: /tmp}
  - {name: shm, mountPath: /dev/shm}
{{- end }}

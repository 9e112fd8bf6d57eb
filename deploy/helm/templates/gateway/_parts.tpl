{{/* What a gateway is told of its neighbours: workers, keys, and the score cache with its Redis. Secrets come as files. */}}

{{- define "rerank.gatewayEnvironment" -}}
{{- $values := .root.Values -}}
{{- $worker := include "rerank.name" (dict "root" .root "part" "worker" "track" .track) -}}
{{- $found := list -}}
{{- range $port := include "rerank.workerOf" . | fromJson | include "rerank.workerPorts" | fromJsonArray -}}
{{- $found = append $found (printf "dns://%s:%v" $worker $port.number) -}}
{{- end }}
- name: HOME
  value: /tmp
- name: RERANK_WORKERS
  value: {{ join "," (ternary $found .own.workers $values.worker.enabled) | quote }}
{{- $prefix := $values.ingress.path | trimSuffix "/" }}
{{- if and $values.ingress.enabled $prefix (not (hasKey .own.settings "RERANK_ROOT_PATH")) }}
- name: RERANK_ROOT_PATH
  value: {{ $prefix | quote }}
{{- end }}
{{- with .own.cascades }}
- name: RERANK_CASCADES
  value: /etc/rerank/cascades/{{ join ",/etc/rerank/cascades/" . }}
{{- end }}
{{- if $values.auth.enabled }}
- name: RERANK_API_KEYS_FILE
  value: /etc/rerank/auth/keys.json
{{- end }}
- name: RERANK_CACHE_KEY_SECRET_FILE
  value: /etc/rerank/cache/secret
{{- if $values.redis.enabled }}
- name: RERANK_REDIS_URL
  value: redis://gmr@{{ include "rerank.fullname" .root }}-redis:6379/0
- name: RERANK_REDIS_PASSWORD_FILE
  value: /etc/rerank/redis/password
{{- else if $values.externalRedis.url }}
{{- include "rerank.externalRedis" $values.externalRedis }}
{{- end }}
{{- if .own.images.diskMiB }}
- name: RERANK_IMAGES_FOLDER
  value: /var/lib/rerank/images
- name: RERANK_IMAGES_DISK_BYTES
  value: {{ mul .own.images.diskMiB 1048576 | quote }}
{{- end }}
{{- if .own.feedback.existingClaim }}
- name: RERANK_FEEDBACK_FOLDER
  value: /var/lib/rerank/feedback
- name: RERANK_FEEDBACK_DISK_BYTES
  value: {{ mul .own.feedback.diskMiB 1048576 | quote }}
{{- end }}
{{- end }}

{{- define "rerank.externalRedis" }}
- name: RERANK_REDIS_URL
  value: {{ .url | quote }}
{{- if .existingSecret }}
- name: RERANK_REDIS_PASSWORD_FILE
  value: /etc/rerank/redis/password
{{- end }}
{{- if .sentinelSecretKey }}
- name: RERANK_REDIS_SENTINEL_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ .existingSecret }}, key: {{ .sentinelSecretKey }}}
{{- end }}
{{- if .tlsSecret }}
{{- with .tlsCAKey }}
- name: RERANK_REDIS_CA_FILE
  value: /etc/rerank/redis-tls/{{ . }}
{{- end }}
{{- if .tlsClientCertificate }}
- name: RERANK_REDIS_CERT_FILE
  value: /etc/rerank/redis-tls/tls.crt
- name: RERANK_REDIS_KEY_FILE
  value: /etc/rerank/redis-tls/tls.key
{{- end }}
{{- end }}
{{- end }}

{{- define "rerank.gatewayMounts" -}}
{{- $values := .root.Values -}}
- {name: tmp, mountPath: /tmp}
- {name: cache-secret, mountPath: /etc/rerank/cache, readOnly: true}
{{- range .own.cascades }}
- {name: cascade-{{ . }}, mountPath: /etc/rerank/cascades/{{ . }}, readOnly: true}
{{- end }}
{{- if $values.auth.enabled }}
- {name: keys, mountPath: /etc/rerank/auth, readOnly: true}
{{- end }}
{{- if or $values.redis.enabled $values.externalRedis.existingSecret }}
- {name: redis-password, mountPath: /etc/rerank/redis, readOnly: true}
{{- end }}
{{- if $values.externalRedis.tlsSecret }}
- {name: redis-tls, mountPath: /etc/rerank/redis-tls, readOnly: true}
{{- end }}
{{- if .own.images.diskMiB }}
- {name: images, mountPath: /var/lib/rerank/images}
{{- end }}
{{- if .own.feedback.existingClaim }}
- {name: feedback, mountPath: /var/lib/rerank/feedback}
{{- end }}
{{- end }}

{{- define "rerank.gatewayVolumes" -}}
{{- $values := .root.Values -}}
{{- $own := include "rerank.secret" .root -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
- name: cache-secret
  secret:
    secretName: {{ $values.cacheSecret.existingSecret | default $own }}
    items: [{key: {{ ternary $values.cacheSecret.existingSecretKey "cache-key-secret" (ne $values.cacheSecret.existingSecret "") }}, path: secret}]
{{- range .own.cascades }}
- name: cascade-{{ . }}
  configMap:
    name: {{ . }}
{{- end }}
{{- if $values.auth.enabled }}
- name: keys
  secret:
    secretName: {{ $values.auth.existingSecret | default $own }}
    items: [{key: {{ ternary $values.auth.existingSecretKey "keys.json" (ne $values.auth.existingSecret "") }}, path: keys.json}]
{{- end }}
{{- if $values.redis.enabled }}
- name: redis-password
  secret:
    secretName: {{ $values.redis.existingSecret | default $own }}
    items: [{key: {{ ternary $values.redis.existingSecretKey "redis-password" (ne $values.redis.existingSecret "") }}, path: password}]
{{- else if $values.externalRedis.existingSecret }}
- name: redis-password
  secret:
    secretName: {{ $values.externalRedis.existingSecret }}
    items: [{key: {{ $values.externalRedis.existingSecretKey }}, path: password}]
{{- end }}
{{- with $values.externalRedis.tlsSecret }}
- name: redis-tls
  secret:
    secretName: {{ . }}
{{- end }}
{{- if .own.images.diskMiB }}
- name: images
  {{- if .own.images.existingClaim }}
  persistentVolumeClaim: {claimName: {{ .own.images.existingClaim }}}
  {{- else }}
  emptyDir: {sizeLimit: {{ div (mul .own.images.diskMiB 5) 4 }}Mi}
  {{- end }}
{{- end }}
{{- if .own.feedback.existingClaim }}
- name: feedback
  persistentVolumeClaim: {claimName: {{ .own.feedback.existingClaim }}}
{{- end }}
{{- end }}

{{/* Redis as a cache: nothing is written to disk, and the least used go first. */}}
{{- define "rerank.redisConfig" -}}
{{- $port := 6379 -}}
port {{ $port }}
bind * -::*
protected-mode yes
save ""
appendonly no
maxmemory {{ div (mul .Values.redis.memoryMiB 3) 4 }}mb
maxmemory-policy allkeys-lru
maxclients 4096
tcp-keepalive 60
timeout 0
io-threads 1
dir /tmp
aclfile {{ ternary "/tmp/users.acl" "/etc/redis/secret/users.acl" (ne .Values.redis.existingSecret "") }}
{{- end }}

{{/* What starts it. A password that is given comes without its hash, which the list of users has. */}}
{{- define "rerank.redisCommand" -}}
{{- if .Values.redis.existingSecret -}}
- sh
- -ec
- |
  hash=$(printf %s "$(cat /etc/redis/secret/password)" | sha256sum | cut -d ' ' -f 1)
  sed "s/PASSWORD_SHA256/$hash/" /etc/redis/config/users.acl > /tmp/users.acl
  exec redis-server /etc/redis/config/redis.conf
{{- else -}}
- redis-server
- /etc/redis/config/redis.conf
{{- end -}}
{{- end }}

{{/* Its users: (root, hash), of the password. Gateways' may do what gateways do, on their keys; the probes' may ask whether it is there. */}}
{{- define "rerank.redisUsers" -}}
{{- $settings := .root.Values.gateway.settings -}}
{{- $prefix := ternary $settings.RERANK_REDIS_KEY_PREFIX "gmr:" (hasKey $settings "RERANK_REDIS_KEY_PREFIX") -}}
user default off
user gmr on #{{ .hash }} resetkeys ~{{ $prefix }}* resetchannels -@all +mget +set +select +getrange +expire +unlink
user probe on nopass resetkeys resetchannels -@all +ping
{{- end }}

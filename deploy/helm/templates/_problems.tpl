{{/* What does not fit together in the values: a sentence a line, nothing where all is well. What a single value may be, values.schema.json
says. */}}

{{- define "rerank.problems" -}}
{{- include "rerank.problemsOfRelease" . }}
{{- include "rerank.problemsOfEntries" . }}
{{- include "rerank.problemsOfJobs" . }}
{{- include "rerank.problemsOfGateway" (dict "root" . "path" "gateway" "own" .Values.gateway) }}
{{- if or .Values.worker.enabled .Values.evaluation.enabled }}
{{- include "rerank.problemsOfModel" (dict "root" . "path" "model" "model" .Values.model) }}
{{- end }}
{{- if .Values.worker.enabled }}
{{- include "rerank.problemsOfWorker" (dict "root" . "path" "worker" "own" .Values.worker) }}
{{- end }}
{{- if .Values.canary.enabled }}
{{- include "rerank.problemsOfCanary" . }}
{{- end }}
{{- end }}

{{- define "rerank.problemsOfRelease" }}
{{- $values := .Values }}
{{- if and $values.redis.enabled $values.externalRedis.url }}
redis.enabled and externalRedis.url: scores are kept in one Redis; set redis.enabled to false to use your own.
{{- end }}
{{- if and $values.redis.existingSecret (not $values.redis.enabled) }}
redis.existingSecret is for the chart's Redis, and redis.enabled is false: the password of your own is in externalRedis.existingSecret.
{{- end }}
{{- if regexMatch "//[^/@]*:[^/@]+@" $values.externalRedis.url }}
externalRedis.url holds a password: values are kept in the clear; put it into a Secret, and name that in externalRedis.existingSecret.
{{- end }}
{{- if and $values.externalRedis.sentinelSecretKey (not $values.externalRedis.existingSecret) }}
externalRedis.sentinelSecretKey is an entry of externalRedis.existingSecret, which is not set.
{{- end }}
{{- if and $values.externalRedis.tlsClientCertificate (not $values.externalRedis.tlsSecret) }}
externalRedis.tlsClientCertificate is in externalRedis.tlsSecret, which is not set.
{{- end }}
{{- if and (not $values.worker.enabled) (not $values.gateway.workers) }}
worker.enabled is false and gateway.workers is empty: gateways need workers.
{{- end }}
{{- if and $values.worker.enabled $values.gateway.workers }}
gateway.workers names workers elsewhere, but this release has its own: set worker.enabled to false.
{{- end }}
{{- if and (not $values.worker.enabled) $values.networkPolicy.enabled (not $values.networkPolicy.gatewayEgress) }}
gateway.workers are outside this release, where the NetworkPolicy lets gateways talk to nobody: say where in networkPolicy.gatewayEgress.
{{- end }}
{{- if and $values.networkPolicy.enabled $values.gateway.settings.RERANK_OTLP_ENDPOINT (not $values.networkPolicy.gatewayEgress) }}
gateway.settings.RERANK_OTLP_ENDPOINT: the NetworkPolicy lets no traces out; say where the collector is in networkPolicy.gatewayEgress.
{{- end }}
{{- if and $values.networkPolicy.enabled $values.worker.enabled $values.worker.settings.RERANK_OTLP_ENDPOINT (not $values.networkPolicy.workerEgress) }}
worker.settings.RERANK_OTLP_ENDPOINT: the NetworkPolicy lets no traces out; say where the collector is in networkPolicy.workerEgress.
{{- end }}
{{- $policies := dict "model.download.extraEnv" (list $values.model.download.extraEnv "workerEgress") "trainer.extraEnv" (list $values.trainer.extraEnv "trainerEgress") }}
{{- range $path, $pair := $policies }}
{{- range $each := first $pair }}
{{- if and $values.networkPolicy.enabled (include "rerank.isEndpoint" $each.name) (not (get $each "value")) (not (get $values.networkPolicy (last $pair))) }}
{{ $path }}: the address in {{ $each.name }} is not among the values, so the NetworkPolicy cannot open its port; say where it is in networkPolicy.{{ last $pair }}.
{{- end }}
{{- end }}
{{- end }}
{{- if and (ne $values.monitoring.scrape "none") $values.auth.enabled (not $values.gateway.settings.RERANK_METRICS_PUBLIC) }}
monitoring.scrape: with auth.enabled, gateways answer /metrics to whoever shows a key; Prometheus shows none, so set RERANK_METRICS_PUBLIC in gateway.settings.
{{- end }}
{{- end }}

{{- define "rerank.problemsOfEntries" }}
{{- $values := .Values }}
{{- if and $values.ingress.enabled (not $values.ingress.hosts) }}
ingress.enabled: ingress.hosts is empty, so it would be an Ingress for nothing.
{{- end }}
{{- if and $values.ingress.enabled (hasKey $values.gateway.settings "RERANK_ROOT_PATH") (ne (trimSuffix "/" $values.ingress.path) (get $values.gateway.settings "RERANK_ROOT_PATH")) }}
ingress.path is {{ $values.ingress.path }}: gateways would not find it, because RERANK_ROOT_PATH in gateway.settings is {{ $values.gateway.settings.RERANK_ROOT_PATH | quote }}.
{{- end }}
{{- if and $values.httpRoute.enabled (not $values.httpRoute.parentRefs) }}
httpRoute.enabled: httpRoute.parentRefs is empty, and a route belongs to a Gateway.
{{- end }}
{{- if and (gt (int $values.canary.share) 0) (not $values.canary.enabled) }}
canary.share is {{ $values.canary.share }} and canary.enabled is false: there is nobody to share with.
{{- end }}
{{- end }}

{{- define "rerank.problemsOfModel" }}
{{- $model := .model }}
{{- if and (eq $model.source "registry") (not (and $model.registry.url $model.registry.name $model.registry.digest)) }}
{{ .path }}.source is registry: {{ .path }}.registry.url, .name and .digest say which checkpoint.
{{- end }}
{{- if and (eq $model.source "hub") (not (and $model.hub.id $model.hub.revision)) }}
{{ .path }}.source is hub: {{ .path }}.hub.id and .revision say which checkpoint; a branch is none, for it moves.
{{- end }}
{{- if and $model.download.existingClaim $model.download.claim.create }}
{{ .path }}.download.existingClaim and {{ .path }}.download.claim.create: downloads go to one claim; use one of them.
{{- end }}
{{- if and (eq $model.source "pvc") (not $model.pvc.claimName) }}
{{ .path }}.source is pvc: {{ .path }}.pvc.claimName says which claim.
{{- end }}
{{- if and (eq $model.source "image") (not $model.image.reference) }}
{{ .path }}.source is image: {{ .path }}.image.reference says which, by its digest.
{{- end }}
{{- if and (eq $model.source "image") (semverCompare "<1.31.0-0" .root.Capabilities.KubeVersion.Version) }}
{{ .path }}.source is image: Kubernetes {{ .root.Capabilities.KubeVersion.Version }} has no image volumes; they come with 1.31, and by default with 1.35.
{{- end }}
{{- end }}

{{/* What gateways and workers have in common: how they end, how many there are. (path, own). */}}
{{- define "rerank.problemsOfPart" }}
{{- $own := .own }}
{{- $grace := include "rerank.graceSeconds" $own | float64 }}
{{- $drain := include "rerank.drainSeconds" $own | float64 }}
{{- if ge $drain $grace }}
{{ .path }}.settings: RERANK_DRAIN_SECONDS ({{ $drain }}) leaves nothing of RERANK_GRACE_SECONDS ({{ $grace }}) to finish what is in flight.
{{- end }}
{{- /* As the server has it: the last two seconds of the grace period close what is left. */}}
{{- $closing := min 2000 (mulf $grace 200) | float64 }}
{{- $left := subf (mulf $grace 1000) (mulf $drain 1000) $closing }}
{{- $timeout := ternary $own.settings .root.Values.gateway.settings (contains "gateway" .path) | dig "RERANK_DEFAULT_TIMEOUT_MS" 60000 | float64 }}
{{- if and (lt $drain $grace) (lt $left $timeout) }}
{{ .path }}.settings: RERANK_GRACE_SECONDS ({{ $grace }}) less RERANK_DRAIN_SECONDS ({{ $drain }}) leaves {{ int $left }} ms to what is in flight, and a request may take RERANK_DEFAULT_TIMEOUT_MS, {{ int $timeout }}.
{{- end }}
{{- $needed := add $own.preStopSeconds (ceil $grace) }}
{{- if and $own.terminationGracePeriodSeconds (lt (int $own.terminationGracePeriodSeconds) (int $needed)) }}
{{ .path }}.terminationGracePeriodSeconds is {{ $own.terminationGracePeriodSeconds }}: preStopSeconds and RERANK_GRACE_SECONDS take {{ $needed }}, drain included; 0 computes it.
{{- end }}
{{- $fewest := ternary $own.autoscaling.minReplicas $own.replicas $own.autoscaling.enabled | int }}
{{- if and $own.pdb.enabled (kindIs "string" $own.pdb.minAvailable | not) (ge (int $own.pdb.minAvailable) $fewest) }}
{{ .path }}.pdb.minAvailable is {{ $own.pdb.minAvailable }} of {{ $fewest }}: no node could be drained; use maxUnavailable, or more replicas.
{{- end }}
{{- if and $own.pdb.enabled (not $own.pdb.minAvailable) (has (toString $own.pdb.maxUnavailable) (list "0" "0%" "")) }}
{{ .path }}.pdb.maxUnavailable is {{ $own.pdb.maxUnavailable | quote }}: no node could be drained.
{{- end }}
{{- if and $own.autoscaling.enabled (gt (int $own.autoscaling.minReplicas) (int $own.autoscaling.maxReplicas)) }}
{{ .path }}.autoscaling: minReplicas ({{ $own.autoscaling.minReplicas }}) is above maxReplicas ({{ $own.autoscaling.maxReplicas }}).
{{- end }}
{{- end }}

{{- define "rerank.problemsOfGateway" }}
{{- include "rerank.problemsOfPart" . }}
{{- $own := .own }}
{{- $requests := $own.resources.requests | default dict }}
{{- if and $own.autoscaling.enabled (not $own.autoscaling.metrics) (not $requests.cpu) }}
{{ .path }}.autoscaling looks at CPU in percent of {{ .path }}.resources.requests.cpu, which is not set.
{{- end }}
{{- $limit := include "rerank.mebibytes" (($own.resources.limits | default dict).memory | default "") | int }}
{{- $bodies := int64 ($own.settings.RERANK_MAX_BODIES_BYTES | default 268435456) }}
{{- $body := int64 ($own.settings.RERANK_MAX_BODY_BYTES | default 67108864) }}
{{- $cache := int64 (ternary $own.settings.RERANK_CACHE_MEMORY_BYTES 67108864 (hasKey $own.settings "RERANK_CACHE_MEMORY_BYTES")) }}
{{- $images := int64 (ternary $own.settings.RERANK_IMAGES_MEMORY_BYTES 268435456 (hasKey $own.settings "RERANK_IMAGES_MEMORY_BYTES")) }}
{{- /* A body that is being read takes up to three times its size beside what is counted; requests hold as many images as are stored; 256 MiB are the process's and its decoders'. */}}
{{- $records := int64 ($own.settings.RERANK_FEEDBACK_MEMORY_BYTES | default 67108864) }}
{{- $buffer := int64 ($own.settings.RERANK_FEEDBACK_BUFFER_BYTES | default 33554432) }}
{{- $feedback := ternary (add $records $buffer) 0 (ne $own.feedback.existingClaim "") }}
{{- $held := add (div (add $bodies (mul 3 $body) (mul 2 $images) $cache $feedback) 1048576) 256 }}
{{- if and $limit (lt $limit (int $held)) }}
{{ .path }}.resources.limits.memory is {{ $limit }} MiB: RERANK_MAX_BODIES_BYTES, three times RERANK_MAX_BODY_BYTES, twice RERANK_IMAGES_MEMORY_BYTES, RERANK_CACHE_MEMORY_BYTES and the process itself may take {{ $held }} MiB.
{{- end }}
{{- if and $own.images.existingClaim (not $own.images.diskMiB) }}
{{ .path }}.images.existingClaim is for images on a disk: {{ .path }}.images.diskMiB says how many MiB of them.
{{- end }}
{{- if and $own.feedback.existingClaim (not .root.Values.redis.enabled) (not .root.Values.externalRedis.url) (or $own.autoscaling.enabled (gt (int $own.replicas) 1)) }}
{{ .path }}.feedback.existingClaim with several gateways needs a Redis, by which one takes feedback on the answers of another: set redis.enabled, or externalRedis.url.
{{- end }}
{{- end }}

{{- define "rerank.problemsOfWorker" }}
{{- include "rerank.problemsOfPart" . }}
{{- $own := .own }}
{{- $count := int $own.gpu.count }}
{{- $engine := include "rerank.engine" $own }}
{{- if and (eq $engine "vllm") (not $count) (not $own.image.repository) }}
{{ .path }}.settings.RERANK_ENGINE is vllm: set {{ .path }}.gpu.count, or, for a CPU, {{ .path }}.image.repository to an image with vLLM's CPU build.
{{- end }}
{{- $parallel := mul (int ($own.settings.RERANK_ENGINE_TENSOR_PARALLEL_SIZE | default 1)) (int ($own.settings.RERANK_ENGINE_PIPELINE_PARALLEL_SIZE | default 1)) }}
{{- if gt (int $parallel) (max 1 $count | int) }}
{{ .path }}.gpu.count is {{ $count }}: RERANK_ENGINE_TENSOR_PARALLEL_SIZE and RERANK_ENGINE_PIPELINE_PARALLEL_SIZE need {{ $parallel }}.
{{- end }}
{{- if and (gt $count 1) (contains "/mig-" $own.gpu.resource) }}
{{ .path }}.gpu.count is {{ $count }} of {{ $own.gpu.resource }}: slices of a GPU do not reach each other, so a model runs on one; take a larger slice, or have more workers.
{{- end }}
{{- if and (eq $engine "torch") (gt $count 1) }}
{{ .path }}.gpu.count is {{ $count }}: the torch engine uses one GPU; set RERANK_ENGINE to vllm, or have more workers.
{{- end }}
{{- if and (eq $engine "torch") (regexMatch "RERANK_ENGINE_|RERANK_ADAPTERS" (keys $own.settings | join " ")) }}
{{ .path }}.settings: RERANK_ADAPTERS and RERANK_ENGINE_* are vLLM's; set RERANK_ENGINE to vllm.
{{- end }}
{{- if gt (int $own.workersPerGpu) 1 }}
{{- if or (ne $count 1) (gt (int $parallel) 1) }}
{{ .path }}.workersPerGpu is {{ $own.workersPerGpu }} and {{ .path }}.gpu.count is {{ $count }}: workers share one GPU each alone, so gpu.count is 1 and nothing is tensor- or pipeline-parallel.
{{- end }}
{{- if eq $engine "torch" }}
{{ .path }}.workersPerGpu is {{ $own.workersPerGpu }}: the torch engine takes what it needs of a GPU's memory; set RERANK_ENGINE to vllm, which keeps to its part.
{{- end }}
{{- $share := $own.settings.RERANK_ENGINE_GPU_MEMORY_UTILIZATION | default 0.9 | float64 }}
{{- if gt $share 0.95 }}
{{ .path }}.settings.RERANK_ENGINE_GPU_MEMORY_UTILIZATION is {{ $share }} for {{ $own.workersPerGpu }} workers together: each takes some memory beside its part, so at most 0.95 leaves room.
{{- end }}
{{- if eq .root.Values.monitoring.scrape "annotations" }}
{{ .path }}.workersPerGpu is {{ $own.workersPerGpu }}: an annotation names one port of a pod, and each worker has one; set monitoring.scrape to podMonitor or serviceMonitor.
{{- end }}
{{- end }}
{{- $scaling := $own.autoscaling }}
{{- if and $scaling.enabled (eq $scaling.by "hpa") (not $scaling.hpa.metrics) (or $count (not ($own.resources.requests | default dict).cpu)) }}
{{ .path }}.autoscaling.by is hpa: CPU says nothing of a worker with GPUs, and nothing at all where resources.requests.cpu is not set; give hpa.metrics, or use keda.
{{- end }}
{{- if and $scaling.enabled (not $scaling.minReplicas) }}
{{- if ne $scaling.by "keda" }}
{{ .path }}.autoscaling.minReplicas is 0: an HPA does not start the first worker; use keda.
{{- end }}
{{- if not (.root.Values.gateway.settings.RERANK_WAIT_FOR_WORKER_SECONDS | default 0) }}
{{ .path }}.autoscaling.minReplicas is 0: gateways are not ready without a worker, so no request would reach them and start one; set gateway.settings.RERANK_WAIT_FOR_WORKER_SECONDS.
{{- end }}
{{- $start := mul $own.startupSeconds $own.workersPerGpu }}
{{- if lt (int $scaling.keda.cooldownSeconds) (int $start) }}
{{ .path }}.autoscaling.keda.cooldownSeconds is {{ $scaling.keda.cooldownSeconds }}: a worker may take {{ $start }} seconds to load (startupSeconds), and would be stopped before.
{{- end }}
{{- end }}
{{- if and $scaling.enabled (eq $scaling.by "keda") (not $scaling.keda.query) (eq .root.Values.monitoring.scrape "none") }}
{{ .path }}.autoscaling.by is keda, which asks Prometheus about the gateways: monitoring.scrape is none, so it would know nothing.
{{- end }}
{{- end }}

{{- define "rerank.problemsOfCanary" }}
{{- $values := .Values }}
{{- $gateway := mergeOverwrite (deepCopy $values.gateway) $values.canary.gateway }}
{{- $worker := mergeOverwrite (deepCopy $values.worker) $values.canary.worker }}
{{- $model := mergeOverwrite (deepCopy $values.model) $values.canary.model }}
{{- if not $values.worker.enabled }}
canary.enabled: its workers are this release's, and worker.enabled is false.
{{- else }}
{{- $same := list (eq (toJson $model) (toJson $values.model)) (eq (toJson (omit $worker "replicas")) (toJson (omit $values.worker "replicas"))) (eq (toJson (omit $gateway "replicas")) (toJson (omit $values.gateway "replicas"))) }}
{{- if not (has false $same) }}
canary.enabled: nothing in canary.model, canary.worker or canary.gateway differs, so there is nothing to try.
{{- end }}
{{- include "rerank.problemsOfModel" (dict "root" . "path" "canary.model" "model" $model) }}
{{- include "rerank.problemsOfWorker" (dict "root" . "path" "canary.worker" "own" (mergeOverwrite $worker (dict "autoscaling" (dict "enabled" false) "pdb" (dict "enabled" false)))) }}
{{- end }}
{{- include "rerank.problemsOfGateway" (dict "root" . "path" "canary.gateway" "own" (mergeOverwrite $gateway (dict "autoscaling" (dict "enabled" false) "pdb" (dict "enabled" false)))) }}
{{- if and (gt (int $values.canary.share) 0) (not $values.httpRoute.enabled) (not $values.ingress.enabled) }}
canary.share is {{ $values.canary.share }}: an HTTPRoute or an Ingress of ingress-nginx gives shares; without either, canary.inService does, by the number of gateways.
{{- end }}
{{- if and (gt (int $values.canary.share) 0) $values.canary.inService }}
canary.share and canary.inService: what the route sends to the main Service would be shared once more; use one of them.
{{- end }}
{{- if and $values.canary.inService (eq $values.monitoring.scrape "serviceMonitor") }}
canary.inService: a serviceMonitor would count its gateways twice; set monitoring.scrape to podMonitor.
{{- end }}
{{- end }}

{{- define "rerank.problemsOfJobs" }}
{{- $own := .Values.trainer }}
{{- if $own.enabled }}
{{- $config := fromYaml $own.config }}
{{- if or $config.Error (not $config.model) (not $config.output) }}
trainer.config is no training configuration: YAML text with at least model and output, as model_store/training/configs/ has it.
{{- end }}
{{- if not $own.claimName }}
trainer.enabled: trainer.claimName says which claim has the data, and keeps the run.
{{- end }}
{{- if and $own.publish.registry (not $own.publish.name) }}
trainer.publish.registry: trainer.publish.name says under which name.
{{- end }}
{{- end }}
{{- end }}

{{/* A quantity in MiB, where it is in Mi or Gi; otherwise 0. */}}
{{- define "rerank.mebibytes" -}}
{{- $text := toString . -}}
{{- if hasSuffix "Gi" $text }}{{ mul (trimSuffix "Gi" $text | int) 1024 }}{{ else if hasSuffix "Mi" $text }}{{ trimSuffix "Mi" $text | int }}{{ else }}0{{ end -}}
{{- end }}

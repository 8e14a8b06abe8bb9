{{- define "labelstream.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}
{{- end }}

{{- /* What pods are chosen by; never changed between versions, since a Deployment's selector cannot be. */}}
{{- define "labelstream.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "labelstream.labels" -}}
{{ include "labelstream.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: labelstream
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "labelstream.annotations" -}}
{{- with .Values.commonAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "labelstream.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "labelstream.fullname" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "labelstream.image" -}}
{{- $image := .Values.image }}
{{- $name := $image.repository }}
{{- if $image.registry }}{{ $name = printf "%s/%s" $image.registry $image.repository }}{{ end }}
{{- if $image.digest }}{{ $name }}@{{ $image.digest }}{{ else }}{{ $name }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "labelstream.configMap" -}}
{{ .Values.existingConfigMap | default (include "labelstream.fullname" .) }}
{{- end }}

{{- /* Whole seconds of a duration as the service writes them: 200ms, 25s, 5m, 1h, or a number. */}}
{{- define "labelstream.seconds" -}}
{{- $text := toString . | trim }}
{{- $number := regexFind "^[0-9.]+" $text | float64 }}
{{- $unit := regexFind "[a-z]+$" $text }}
{{- $each := get (dict "ms" 0.001 "m" 60.0 "h" 3600.0) $unit | default 1.0 }}
{{- mulf $number $each | ceil | int }}
{{- end }}

{{- /* What a pod needs to drain: the longest drain of the streams, and 15 s for the commit and the rest. */}}
{{- define "labelstream.leastGrace" -}}
{{- $longest := 0 }}
{{- range .Values.config.streams }}
{{- $longest = max $longest (include "labelstream.seconds" (default "25s" (toString (default "25s" .drain))) | int) }}
{{- end }}
{{- add (max $longest (ternary 0 25 (not (empty .Values.config)))) 15 }}
{{- end }}

{{- define "labelstream.grace" -}}
{{- $least := include "labelstream.leastGrace" . | int }}
{{- $grace := .Values.terminationGracePeriodSeconds | default $least | int }}
{{- if lt $grace $least }}
{{- fail (printf "terminationGracePeriodSeconds is %d, but pods need %d: the longest drain of the streams and 15 s more" $grace $least) }}
{{- end }}
{{- $grace }}
{{- end }}

{{- /* Everything that contradicts itself, said before anything is rendered. */}}
{{- define "labelstream.validate" -}}
{{- $values := .Values }}
{{- if and (empty $values.config) (empty $values.existingConfigMap) }}
{{- fail "there is no configuration: give config (see config/triage.yaml) or existingConfigMap" }}
{{- end }}
{{- if and $values.config $values.existingConfigMap }}
{{- fail "give either config or existingConfigMap, not both" }}
{{- end }}
{{- with $values.autoscaling }}{{ if .enabled }}
{{- if lt (int .partitions) 1 }}
{{- fail "autoscaling.partitions is not set: give the partitions of the input topic that has the most, as workers beyond stand idle" }}
{{- end }}
{{- if gt (mul (int .maxReplicas) (int $values.workers)) (int .partitions) }}
{{- $each := ternary "" (printf " of %d workers each" (int $values.workers)) (eq (int $values.workers) 1) }}
{{- fail (printf "autoscaling.maxReplicas is %d%s, but the topic has %d partitions: workers beyond would stand idle" (int .maxReplicas) $each (int .partitions)) }}
{{- end }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
{{- fail "autoscaling.minReplicas is above maxReplicas" }}
{{- end }}
{{- if and (eq .type "hpa") (lt (int .minReplicas) 1) }}
{{- fail "autoscaling.minReplicas is 0, which only KEDA can do: at least 1 with type hpa" }}
{{- end }}
{{- if and (eq .type "keda") $values.existingConfigMap }}
{{- fail "autoscaling by KEDA takes brokers, group and topics from config, which existingConfigMap hides: give config, or type external" }}
{{- end }}
{{- end }}{{ end }}
{{- if and $values.config.kafka (or $values.config.kafka.sasl_password (hasKey $values.config.kafka "sasl_password")) }}
{{- fail "config.kafka.sasl_password would be in a ConfigMap for all to read: use kafka.sasl.existingSecret" }}
{{- end }}
{{- if and $values.config.redis (dig "redis" "password" "" $values.config) }}
{{- fail "config.redis.password would be in a ConfigMap for all to read: use secrets.existingSecret and password_file" }}
{{- end }}
{{- if and $values.config.registry (or (dig "registry" "password" "" $values.config) (dig "registry" "token" "" $values.config)) }}
{{- fail "config.registry has a secret that would be in a ConfigMap for all to read: use secrets.existingSecret and password_file or token_file" }}
{{- end }}
{{- range $name, $account := $values.config.accounts }}
{{- if or $account.key $account.secret_access_key (dig "training" "container" "" $account) }}
{{- fail (printf "config.accounts.%s has a key that would be in a ConfigMap for all to read: use secrets.existingSecret and key_file" $name) }}
{{- end }}
{{- end }}
{{- if $values.serve.enabled }}
{{- if not $values.serve.existingSecret }}
{{- fail "serve.existingSecret is not set: beyond loopback clients need a key" }}
{{- end }}
{{- if and (not $values.serve.tls.existingSecret) (not $values.serve.plaintext) }}
{{- fail "serve has no certificate: give serve.tls.existingSecret, or serve.plaintext where something else encrypts" }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Of the workers and of whoever checks what they would find. */}}
{{- define "labelstream.env" -}}
- {name: LABELSTREAM_HEALTH__HOST, value: "0.0.0.0"}
- {name: LABELSTREAM_HEALTH__PORT, value: "9464"}
{{- with .Values.kafka.sasl }}{{ if .existingSecret }}
- name: LABELSTREAM_KAFKA__SASL_USERNAME
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .usernameKey }}}}
- {name: LABELSTREAM_KAFKA__SASL_PASSWORD_FILE, value: /run/secrets/kafka-sasl/password}
{{- end }}{{ end }}
{{- with .Values.kafka.tls }}{{ if .existingSecret }}
- {name: LABELSTREAM_KAFKA__SSL_CA_FILE, value: /run/secrets/kafka-tls/ca}
{{- if .certKey }}
- {name: LABELSTREAM_KAFKA__SSL_CERT_FILE, value: /run/secrets/kafka-tls/cert}
{{- end }}
{{- if .keyKey }}
- {name: LABELSTREAM_KAFKA__SSL_KEY_FILE, value: /run/secrets/kafka-tls/key}
{{- end }}
{{- end }}{{ end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "labelstream.mounts" -}}
- {name: config, mountPath: /etc/labelstream, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if .Values.secrets.existingSecret }}
- {name: secrets, mountPath: /run/secrets/labelstream, readOnly: true}
{{- end }}
{{- if .Values.kafka.sasl.existingSecret }}
- {name: kafka-sasl, mountPath: /run/secrets/kafka-sasl, readOnly: true}
{{- end }}
{{- if .Values.kafka.tls.existingSecret }}
- {name: kafka-tls, mountPath: /run/secrets/kafka-tls, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "labelstream.volumes" -}}
- name: config
  configMap: {name: {{ include "labelstream.configMap" . }}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- with .Values.secrets.existingSecret }}
- name: secrets
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with .Values.kafka.sasl }}{{ if .existingSecret }}
- name: kafka-sasl
  secret: {secretName: {{ .existingSecret }}, defaultMode: 0440, items: [{key: {{ .passwordKey }}, path: password}]}
{{- end }}{{ end }}
{{- with .Values.kafka.tls }}{{ if .existingSecret }}
- name: kafka-tls
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      - {key: {{ .caKey }}, path: ca}
      {{- with .certKey }}
      - {key: {{ . }}, path: cert}
      {{- end }}
      {{- with .keyKey }}
      - {key: {{ . }}, path: key}
      {{- end }}
{{- end }}{{ end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* What every pod of the release has: who it is, and what it may do to its node. */}}
{{- define "labelstream.podBasics" -}}
serviceAccountName: {{ include "labelstream.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "labelstream.identityLabels" -}}
{{- if .Values.podIdentity.azureWorkload.clientId }}
azure.workload.identity/use: "true"
{{- end }}
{{- end }}

{{- /* The ports of the brokers and endpoints that the configuration names, and 443; separated by spaces. */}}
{{- define "labelstream.ports" -}}
{{- $ports := list 443 }}
{{- $kafka := default dict .Values.config.kafka }}
{{- range splitList "," (toString (default "" $kafka.bootstrap_servers)) }}
{{- with regexFind ":[0-9]+$" (trim .) }}{{ $ports = append $ports (trimPrefix ":" . | int) }}{{ end }}
{{- end }}
{{- with .Values.config.redis }}{{ $ports = append $ports (default 6379 .port | int) }}{{ end }}
{{- with .Values.config.registry }}
{{- with regexFind "^https?://[^/]*:[0-9]+" (toString .url) }}{{ $ports = append $ports (regexFind "[0-9]+$" . | int) }}{{ end }}
{{- end }}
{{- with .Values.config.tracing }}
{{- with regexFind "^https?://[^/]*:[0-9]+" (toString .endpoint) }}{{ $ports = append $ports (regexFind "[0-9]+$" . | int) }}{{ end }}
{{- end }}
{{- range .Values.config.accounts }}
{{- range list .endpoint .endpoint_url .storage_url }}
{{- with regexFind "^https?://[^/]*:[0-9]+" (toString (default "" .)) }}{{ $ports = append $ports (regexFind "[0-9]+$" . | int) }}{{ end }}
{{- end }}
{{- end }}
{{- concat $ports .Values.networkPolicy.egress.ports | uniq | join " " }}
{{- end }}

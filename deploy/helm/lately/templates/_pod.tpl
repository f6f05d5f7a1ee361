{{/* What all pods of Lately share. */}}

{{- define "lately.labels" -}}
app.kubernetes.io/name: lately
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* (dict "root" $ "component" "worker") */}}
{{- define "lately.selector" -}}
app.kubernetes.io/name: lately
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "lately.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "lately.workers" -}}
{{ .Release.Name }}-workers
{{- end }}

{{- define "lately.pod" -}}
# A Service named lately would else become LATELY_PORT and its like in every pod, which are no settings.
enableServiceLinks: false
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "lately.container" -}}
image: {{ include "lately.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- define "lately.env" -}}
- name: LATELY_AUTH
  value: token
- name: LATELY_MYSQL_PASSWORD_FILE
  value: /run/secrets/lately/mysql_password
- name: LATELY_TOKEN_SECRET_FILE
  value: /run/secrets/lately/token_secret
- name: LATELY_CURSOR_SECRET_FILE
  value: /run/secrets/lately/cursor_secret
{{- if .Values.signingKey }}
- name: LATELY_SIGNING_KEY_FILE
  value: /run/secrets/lately/signing_key
{{- end }}
{{- range .Values.previousSecrets }}
- name: LATELY_{{ upper . }}_PREVIOUS_FILE
  value: /run/secrets/lately/{{ . }}_previous
{{- end }}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "lately.mounts" -}}
- name: secret
  mountPath: /run/secrets/lately
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- end }}

{{- define "lately.volumes" -}}
- name: secret
  secret:
    secretName: {{ .Values.secret }}
    defaultMode: 0440
- name: tmp
  emptyDir: {}
{{- end }}

{{- define "causeway.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "causeway.image" -}}
{{- if .Values.image.digest }}
image: {{ printf "%s@%s" .Values.image.repository .Values.image.digest | quote }}
{{- else }}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
{{- end }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{/* Called with (list $ "component"). */}}
{{- define "causeway.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "causeway.labels" -}}
{{- $root := index . 0 -}}
{{ include "causeway.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end }}

{{/* The head of every pod. */}}
{{- define "causeway.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "causeway.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "causeway.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The environment of every process of the manager. */}}
{{- define "causeway.managerEnv" -}}
{{- $name := include "causeway.name" . -}}
- name: SECRET_KEY_FILE
  value: /run/secrets/causeway/secret_key
- name: DATABASE_URL_FILE
  value: /run/secrets/causeway/database_url
- name: BROKER_URL_FILE
  value: /run/secrets/causeway/broker_url
- name: ALLOWED_HOSTS
  value: {{ concat .Values.manager.hosts (list "localhost" (printf "%s-web" $name) (printf "%s-web.%s.svc" $name .Release.Namespace)) | join "," | quote }}
- name: CAUSEWAY_HTTPS
  value: {{ ternary "on" "off" .Values.manager.https | quote }}
- name: CAUSEWAY_TRUSTED_PROXIES
  value: {{ join "," .Values.manager.trustedProxies | quote }}
{{- range $variable, $value := .Values.manager.env }}
- name: {{ $variable }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "causeway.managerMounts" -}}
- name: secrets
  mountPath: /run/secrets/causeway
  readOnly: true
- name: state
  mountPath: /state
- name: tmp
  mountPath: /tmp
{{- end }}

{{- define "causeway.managerVolumes" -}}
- name: secrets
  secret:
    secretName: {{ .Values.manager.secret }}
    defaultMode: 0440
- name: state
  emptyDir: {}
- name: tmp
  emptyDir: {}
{{- end }}

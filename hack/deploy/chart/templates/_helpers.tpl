{{- define "reprise.labels" -}}
app.kubernetes.io/name: reprise
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "reprise.selector" -}}
app.kubernetes.io/name: reprise
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "reprise.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Of every `reprise node` command: which node, for itself and for the cluster. */}}
{{- define "reprise.where" -}}
- --root=/host
- --node=$(NODE_NAME)
- --containerd-config={{ .Values.installer.containerdConfig }}
{{- with .Values.installer.containerd }}
- --containerd={{ . }}
{{- end }}
{{- end }}

{{/* How containerd is restarted. */}}
{{- define "reprise.restart" -}}
{{- with .Values.installer.restartCommand -}}
- {{ printf "--restart-command=%s" . | quote }}
{{- else -}}
- --unit={{ .Values.installer.unit }}
{{- end }}
{{- end }}

{{/* Of `reprise node uninstall`. */}}
{{- define "reprise.uninstall" -}}
{{ include "reprise.where" . }}
{{ include "reprise.restart" . }}
{{- if .Values.installer.purge }}
- --purge
{{- end }}
{{- end }}

{{/* The one to whom the cluster's rights are given, and by whom they are bounded. */}}
{{- define "reprise.installer" -}}
{{ .Release.Name }}-installer
{{- end }}

{{/* Of an admission policy for the installer: whom it is about, and on which node. */}}
{{- define "reprise.own" -}}
matchConditions:
  - name: installer
    expression: request.userInfo.username == "system:serviceaccount:{{ .Release.Namespace }}:{{ include "reprise.installer" . }}"
variables:
  # The token of a pod names the node of the pod. No other token will do.
  - name: node
    expression: request.userInfo.?extra[?"authentication.kubernetes.io/node-name"].orValue([""])[0]
{{- end }}

{{/* Of what only exists while the release is removed. */}}
{{- define "reprise.removal" -}}
helm.sh/hook: pre-delete
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

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

{{/* Of every `reprise node` command: which node. */}}
{{- define "reprise.where" -}}
- --root=/host
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

{{/* Of what only exists while the release is removed. */}}
{{- define "reprise.removal" -}}
helm.sh/hook: pre-delete
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{- define "base.labels" -}}
app.kubernetes.io/component: base
app.kubernetes.io/managed-by: lateen
app.kubernetes.io/name: base
app.kubernetes.io/part-of: lateen
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

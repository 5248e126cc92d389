{{- define "gateway.name" -}}
{{- .Values.name | default .Release.Name }}
{{- end }}

{{- define "gateway.namespace" -}}
{{- .Values.namespace | default .Release.Namespace }}
{{- end }}

{{- define "gateway.revision" -}}
{{- .Values.revision | default "default" }}
{{- end }}

{{- define "gateway.suffix" -}}
{{- if not (has .Values.revision (list "" "default")) }}-{{ .Values.revision }}{{ end }}
{{- end }}

{{- define "gateway.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (printf "%s-service-account" (include "gateway.name" .)) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "gateway.discovery" -}}
istiod{{ include "gateway.suffix" . }}.{{ .Values.global.istioNamespace }}.svc:15012
{{- end }}

{{- /* Labels by which Gateways choose the pods. */}}
{{- define "gateway.selector" -}}
{{- $own := dict "app" (include "gateway.name" .) "istio" (include "gateway.name" . | trimPrefix "istio-") }}
{{- mustMergeOverwrite $own (deepCopy .Values.labels) | toYaml }}
{{- end }}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
istio.io/rev: {{ include "gateway.revision" . | quote }}
app.kubernetes.io/component: {{ .Values.component }}
app.kubernetes.io/instance: {{ include "gateway.name" . }}
app.kubernetes.io/managed-by: lateen
app.kubernetes.io/name: {{ include "gateway.name" . }}
app.kubernetes.io/part-of: lateen
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

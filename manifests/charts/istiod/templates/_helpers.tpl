{{- /* Values with `pilot` on top of what stands at the root. */}}
{{- define "istiod.values" -}}
{{- $own := deepCopy (omit .Values "pilot") }}
{{- mustMergeOverwrite $own (deepCopy (.Values.pilot | default dict)) | toYaml }}
{{- end }}

{{- /* The revision's name, `default` for the one without. */}}
{{- define "istiod.revision" -}}
{{- .Values.revision | default "default" }}
{{- end }}

{{- /* What follows the names of a revision's objects. */}}
{{- define "istiod.suffix" -}}
{{- if not (has .Values.revision (list "" "default")) }}-{{ .Values.revision }}{{ end }}
{{- end }}

{{- define "istiod.name" -}}
istiod{{ include "istiod.suffix" . }}
{{- end }}

{{- /* What follows the names of the webhooks, which are objects of the whole cluster. */}}
{{- define "istiod.webhook" -}}
istio-sidecar-injector{{ include "istiod.suffix" . }}
{{- if ne .Values.global.istioNamespace "istio-system" }}-{{ .Values.global.istioNamespace }}{{ end }}
{{- end }}

{{- define "istiod.tag" -}}
{{- .Values.global.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "istiod.labels" -}}
app: istiod
istio.io/rev: {{ include "istiod.revision" . | quote }}
app.kubernetes.io/component: pilot
app.kubernetes.io/instance: {{ include "istiod.name" . }}
app.kubernetes.io/managed-by: lateen
app.kubernetes.io/name: istiod
app.kubernetes.io/part-of: lateen
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* Labels that choose the pods: never to change. */}}
{{- define "istiod.selector" -}}
app: istiod
{{- if include "istiod.suffix" . }}
istio.io/rev: {{ .Values.revision | quote }}
{{- else }}
istio: pilot
{{- end }}
{{- end }}

{{- /* Namespaces that the injection webhook stays away from: a control plane that is down must not keep itself, or the
       cluster, from starting. */}}
{{- define "istiod.spared" -}}
- key: kubernetes.io/metadata.name
  operator: NotIn
  values:
  {{- range list "kube-system" "kube-public" "kube-node-lease" .Values.global.istioNamespace | uniq }}
  - {{ . }}
  {{- end }}
{{- end }}

{{- /* An entry of the injection webhook: root, name, namespaces, pods (lists of expressions). */}}
{{- define "istiod.injection" -}}
- name: {{ .name }}sidecar-injector.istio.io
  clientConfig:
    service:
      name: {{ include "istiod.name" .root }}
      namespace: {{ .root.Values.global.istioNamespace }}
      path: /inject
      port: 443
  rules:
  - operations: [CREATE]
    apiGroups: [""]
    apiVersions: [v1]
    resources: [pods]
    scope: "*"
  failurePolicy: Fail
  matchPolicy: Equivalent
  reinvocationPolicy: {{ .root.Values.sidecarInjectorWebhook.reinvocationPolicy }}
  sideEffects: None
  timeoutSeconds: 10
  admissionReviewVersions: [v1]
  namespaceSelector:
    matchExpressions:
    {{- .namespaces | nindent 4 }}
    {{- include "istiod.spared" .root | nindent 4 }}
  objectSelector:
    matchExpressions:
    {{- .pods | nindent 4 }}
{{- end }}

{{- /* Entries for those who ask for a revision or tag by its name: root, name. */}}
{{- define "istiod.injection.named" -}}
{{- $namespaces := printf "- key: istio.io/rev\n  operator: In\n  values: [%s]\n- key: istio-injection\n  operator: DoesNotExist" (quote .name) }}
{{- $pods := "- key: sidecar.istio.io/inject\n  operator: NotIn\n  values: [\"false\"]" }}
{{ include "istiod.injection" (dict "root" .root "name" "rev.namespace." "namespaces" $namespaces "pods" $pods) }}
{{- $namespaces := "- key: istio.io/rev\n  operator: DoesNotExist\n- key: istio-injection\n  operator: DoesNotExist" }}
{{- $pods := printf "%s\n- key: istio.io/rev\n  operator: In\n  values: [%s]" $pods (quote .name) }}
{{ include "istiod.injection" (dict "root" .root "name" "rev.object." "namespaces" $namespaces "pods" $pods) }}
{{- end }}

{{- /* Entries for those who name no revision. */}}
{{- define "istiod.injection.default" -}}
{{- $namespaces := "- key: istio-injection\n  operator: In\n  values: [enabled]" }}
{{- $pods := "- key: sidecar.istio.io/inject\n  operator: NotIn\n  values: [\"false\"]" }}
{{ include "istiod.injection" (dict "root" . "name" "namespace." "namespaces" $namespaces "pods" $pods) }}
{{- $namespaces := "- key: istio-injection\n  operator: DoesNotExist\n- key: istio.io/rev\n  operator: DoesNotExist" }}
{{- $pods := "- key: sidecar.istio.io/inject\n  operator: In\n  values: [\"true\"]\n- key: istio.io/rev\n  operator: DoesNotExist" }}
{{ include "istiod.injection" (dict "root" . "name" "object." "namespaces" $namespaces "pods" $pods) }}
{{- if .Values.sidecarInjectorWebhook.enableNamespacesByDefault }}
{{- $pods := "- key: sidecar.istio.io/inject\n  operator: DoesNotExist\n- key: istio.io/rev\n  operator: DoesNotExist" }}
{{ include "istiod.injection" (dict "root" . "name" "auto." "namespaces" $namespaces "pods" $pods) }}
{{- end }}
{{- end }}

{{/* The release's name, with the chart's where that says more. */}}
{{- define "prio-operator.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "prio-operator.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "prio-operator.keys-selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: keys
{{- end }}

{{- define "prio-operator.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: prio-operator
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* An image reference of repository, tag, digest. */}}
{{- define "prio-operator.image" -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ required "give a tag or a digest for every image" .tag }}
{{- end }}
{{- end }}

{{/* The watched namespaces, as a JSON list. */}}
{{- define "prio-operator.namespaces" -}}
{{- .Values.watchNamespaces | default (list .Release.Namespace) | toJson }}
{{- end }}

{{/* Egress rules to the stores of mailboxes in buckets, and to what gives cloud identities; nothing while mailboxes.network is off. */}}
{{- define "prio-operator.stores-egress" -}}
{{- with .Values.mailboxes.network }}
{{- if .enabled }}
# DNS
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
# Stores of mailboxes, and the clouds' token services
- ports:
    {{- range .ports }}
    - {port: {{ int . }}, protocol: TCP}
    {{- end }}
  {{- if or .cidrs .to }}
  to:
    {{- range .cidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
    {{- with .to }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
{{- with .identityServers }}
# Servers on the node that say who a pod is to its cloud
- ports:
    - {port: 80, protocol: TCP}
    - {port: 988, protocol: TCP}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

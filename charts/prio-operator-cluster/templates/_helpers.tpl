{{/* Labels of everything. */}}
{{- define "prio-operator-cluster.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: prio-operator
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* What an operator's account may do in the namespaces that it watches. The chart prio-operator has the same rules in its Role. */}}
{{- define "prio-operator-cluster.operator-rules" -}}
- apiGroups: [prio-operator.io]
  resources: [datashareprocessors]
  # create: only to probe the authors' policy by a dry run that must be refused.
  verbs: [get, list, watch, create]
- apiGroups: [prio-operator.io]
  resources: [keyrings]
  verbs: [get]
- apiGroups: [prio-operator.io]
  resources: [batches, aggregationwindows]
  verbs: [get, list, watch, create, patch, delete, deletecollection]
- apiGroups: [prio-operator.io]
  resources: [peers]
  verbs: [get, list, watch]
- apiGroups: [prio-operator.io]
  resources: [datashareprocessors/status, batches/status, aggregationwindows/status, peers/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create]
{{- with .Values.watchAllNamespaces.manifestConfigMaps }}
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: {{- toYaml . | nindent 4 }}
  verbs: [patch]
{{- end }}
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
{{- end }}

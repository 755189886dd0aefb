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
  resources: [batches, aggregationwindows]
  verbs: [get, list, watch, create, update, patch, delete, deletecollection]
- apiGroups: [prio-operator.io]
  resources: [datashareprocessors/status, batches/status, aggregationwindows/status]
  verbs: [get, update, patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete, deletecollection]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete, deletecollection]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [get, list, watch, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [get, list, watch, create, patch]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update, patch]
{{- end }}

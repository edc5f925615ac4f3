{{- /* Written by `make chart` from the project's own documents; edit those. */}}
{{- define "scalingsweep.rules.operator" -}}
- apiGroups:
  - scalingsweep.dev
  resources:
  - scalingsweeps
  verbs:
  - list
  - watch
- apiGroups:
  - scalingsweep.dev
  resources:
  - scalingruns
  verbs:
  - get
  - list
  - watch
  - create
- apiGroups:
  - scalingsweep.dev
  resources:
  - scalingsweeps/status
  verbs:
  - update
- apiGroups:
  - scalingsweep.dev
  resources:
  - scalingruns/status
  verbs:
  - get
  - patch
- apiGroups:
  - batch
  resources:
  - jobs
  verbs:
  - get
  - list
  - watch
  - create
  - patch
- apiGroups:
  - ''
  resources:
  - pods
  verbs:
  - list
  - watch
- apiGroups:
  - ''
  resources:
  - configmaps
  verbs:
  - get
- apiGroups:
  - ''
  resources:
  - persistentvolumeclaims
  verbs:
  - get
  - create
- apiGroups:
  - ''
  resources:
  - serviceaccounts
  verbs:
  - get
  - create
- apiGroups:
  - rbac.authorization.k8s.io
  resources:
  - roles
  - rolebindings
  verbs:
  - get
  - create
  - patch
- apiGroups:
  - events.k8s.io
  resources:
  - events
  verbs:
  - create
  - patch
{{- end }}
{{- define "scalingsweep.rules.lease" -}}
- apiGroups:
  - coordination.k8s.io
  resources:
  - leases
  verbs:
  - create
- apiGroups:
  - coordination.k8s.io
  resources:
  - leases
  verbs:
  - get
  - update
  resourceNames:
  - {{ include "scalingsweep.fullname" $ }}
{{- end }}

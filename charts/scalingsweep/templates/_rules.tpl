{{- /* Written by `make chart` from the project's own documents; edit those. */}}
{{- define "scalingsweep.rules.operator" -}}
- apiGroups:
  - scalingsweep.dev
  resources:
  - scalingsweeps
  verbs:
  - get
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
  - scalingruns/status
  verbs:
  - get
  - patch
  - update
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
  - get
  - list
  - watch
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
  - patch
  resourceNames:
  - {{ include "scalingsweep.fullname" $ }}
{{- end }}

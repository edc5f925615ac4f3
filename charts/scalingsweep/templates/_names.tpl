{{- /* Names, labels and accounts. A name leaves room for suffixes of 13 characters within a DNS label. */}}
{{- define "scalingsweep.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "scalingsweep.fullname" -}}
{{- $name := include "scalingsweep.name" . }}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- $full = default $full .Values.fullnameOverride }}
{{- if gt (len $full) 50 }}
{{- $full = printf "%s-%s" ($full | trunc 41 | trimSuffix "-" | trimSuffix ".") ($full | sha256sum | trunc 8) }}
{{- end }}
{{- $full }}
{{- end }}

{{- define "scalingsweep.account" -}}
{{- default (include "scalingsweep.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- /* Cluster-wide objects carry the namespace too: two releases of one name may live in two namespaces. */}}
{{- define "scalingsweep.clusterName" -}}
{{ .Release.Namespace }}-{{ include "scalingsweep.account" . }}
{{- end }}

{{- define "scalingsweep.selector" -}}
app.kubernetes.io/name: {{ include "scalingsweep.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Of the pod of `helm test`: were it the operator's, its NetworkPolicy and its disruption budget would take it in. */}}
{{- define "scalingsweep.testSelector" -}}
app.kubernetes.io/name: {{ include "scalingsweep.name" . }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "scalingsweep.labels" -}}
{{ include "scalingsweep.selector" . }}
{{ include "scalingsweep.furtherLabels" . }}
{{- end }}

{{- define "scalingsweep.furtherLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "scalingsweep.annotations" -}}
{{- with .Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "scalingsweep.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{- /* The accounts of every operator in this cluster, as a list in CEL. */}}
{{- define "scalingsweep.operators" -}}
{{- $accounts := list (printf "%s/%s" .Release.Namespace (include "scalingsweep.account" .)) }}
{{- range $i, $account := concat $accounts .Values.admissionPolicies.otherOperators }}
{{- if $i }}, {{ end }}"system:serviceaccount:{{ $account | replace "/" ":" }}"
{{- end }}
{{- end }}

{{- /* Yes when the cluster has an API that an object needs; fails with a sentence where that is asked for. */}}
{{- define "scalingsweep.has" -}}
{{- $root := index . 0 }}{{ $kind := index . 1 }}{{ $whenAbsent := index . 2 }}{{ $value := index . 3 }}
{{- if $root.Capabilities.APIVersions.Has $kind }}yes
{{- else if eq $whenAbsent "Fail" }}
{{- fail (printf "%s asks for %s, which this cluster does not have: install its CRDs first, or set %s to Skip (offline, tell helm template of them with --api-versions %s)" $value $kind (printf "%s.whenAbsent" (splitList "." $value | first)) $kind) }}
{{- end }}
{{- end }}

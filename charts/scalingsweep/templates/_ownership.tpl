{{- /* What two releases of a cluster must not share. Helm would say "invalid ownership metadata", or nothing at all where
two operators work on the same sweeps; this says what to do. `helm template` knows no cluster and looks nothing up. */}}

{{- /* "namespace/name" of another release that owns an object and is installed still. */}}
{{- define "scalingsweep.otherOwner" -}}
{{- $root := index . 0 }}{{ $metadata := (index . 1).metadata }}
{{- $annotations := default (dict) $metadata.annotations }}
{{- $release := default "" (index $annotations "meta.helm.sh/release-name") }}
{{- $namespace := default "" (index $annotations "meta.helm.sh/release-namespace") }}
{{- if and $release (not (and (eq $release $root.Release.Name) (eq $namespace $root.Release.Namespace))) }}
{{- range (lookup "apps/v1" "Deployment" $namespace "").items }}
{{- if eq (default "" (index (default (dict) .metadata.labels) "app.kubernetes.io/instance")) $release }}
{{- printf "%s/%s " $namespace $release }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "scalingsweep.checkOwnership" -}}
{{- $shared := list }}
{{- if .Values.crds.enabled }}
{{- $shared = append $shared (list "apiextensions.k8s.io/v1" "CustomResourceDefinition" "scalingsweeps.scalingsweep.dev" "crds.enabled=false") }}
{{- end }}
{{- if .Values.rbac.userRoles }}
{{- $shared = append $shared (list "rbac.authorization.k8s.io/v1" "ClusterRole" "scalingsweep-view" "rbac.userRoles=false") }}
{{- end }}
{{- if .Values.admissionPolicies.trainers }}
{{- $shared = append $shared (list "admissionregistration.k8s.io/v1" "ValidatingAdmissionPolicy" "trainers.scalingsweep.dev" "admissionPolicies.trainers=false") }}
{{- end }}
{{- if .Values.admissionPolicies.approvals }}
{{- $shared = append $shared (list "admissionregistration.k8s.io/v1" "ValidatingAdmissionPolicy" "approvals.scalingsweep.dev" "admissionPolicies.approvals=false") }}
{{- end }}
{{- $settings := list }}{{ $owner := "" }}
{{- range $entry := $shared }}
{{- with lookup (index $entry 0) (index $entry 1) "" (index $entry 2) }}
{{- with include "scalingsweep.otherOwner" (list $ .) | trim }}
{{- $owner = . | splitList " " | first }}
{{- $settings = append $settings (printf "--set %s" (index $entry 3)) }}
{{- end }}
{{- end }}
{{- end }}
{{- if $settings }}
{{- fail (printf "release %s owns what one release of a cluster owns; install this one with %s%s" $owner (join " " $settings) (has "--set admissionPolicies.trainers=false" $settings | ternary (printf ", and name its operator in the other's admissionPolicies.otherOperators: %s/%s" .Release.Namespace (include "scalingsweep.account" .)) "")) }}
{{- end }}
{{- end }}

{{- /* Two operators must not work on the same sweeps. */}}
{{- define "scalingsweep.checkOverlap" -}}
{{- $bindings := list }}
{{- if or .Values.crds.enabled (not .Values.watch.namespaces) }}{{- /* whoever installs these may read cluster-wide */}}
{{- $bindings = concat $bindings (default (list) (lookup "rbac.authorization.k8s.io/v1" "ClusterRoleBinding" "" "").items) }}
{{- end }}
{{- range default (list "") .Values.watch.namespaces }}
{{- $bindings = concat $bindings (default (list) (lookup "rbac.authorization.k8s.io/v1" "RoleBinding" . "").items) }}
{{- end }}
{{- range $bindings }}
{{- if and (hasPrefix (printf "%s-" $.Chart.Name) (default "" (index (default (dict) .metadata.labels) "helm.sh/chart"))) (not (hasSuffix "-lease" .metadata.name)) }}
{{- with include "scalingsweep.otherOwner" (list $ .) | trim }}
{{- fail (printf "release %s works in %s already; two operators must not work on the same sweeps: give each its own watch.namespaces" (. | splitList " " | first) (default "the whole cluster" $.Values.watch.namespaces | toString)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

"""Templates made from the project's own documents: the operator's rules, the people's roles, the admission policies.

Owns how a document of `roles` and `admission` becomes a template: written once with a stand-in for the operator's
account, which the chart knows only when it is installed. `{{` of a document's own would be a template; there is none.
"""

from typing import Any

import yaml

from sweep_operator.clusters.kubernetes import admission, roles

HEAD = "{{- /* Written by `make chart` from the project's own documents; edit those. */}}\n"
STAND_IN = roles.Account("stand-in-namespace", "stand-in-account")
STAND_IN_LEASE = "stand-in-lease"


def rules_template() -> str:
    """Named templates with the operator's rules, for a Role or a ClusterRole."""
    return (
        HEAD
        + _named("scalingsweep.rules.operator", [rule.to_json() for rule in roles.OPERATOR_RULES])
        + _named("scalingsweep.rules.lease", [rule.to_json() for rule in roles.lease_rules(STAND_IN_LEASE)])
    )


def user_roles_template() -> str:
    """The roles for people, whole."""
    documents = [_labelled(document) for document in roles.user_roles()]
    return HEAD + "{{- if .Values.rbac.userRoles }}\n" + "".join(documents) + "{{- end }}\n"


def admission_template() -> str:
    """Both policies with their bindings, each pair by its own value."""
    by_name: dict[str, str] = {}
    for document in admission.policies(STAND_IN):
        name = document["metadata"]["name"]
        by_name[name] = by_name.get(name, "") + _labelled(document)
    switches = {admission.TRAINERS: "trainers", admission.APPROVALS: "approvals"}
    return HEAD + "".join(
        f"{{{{- if .Values.admissionPolicies.{switches[name]} }}}}\n{text}{{{{- end }}}}\n"
        for name, text in by_name.items()
    )


def _named(name: str, value: Any) -> str:
    return f'{{{{- define "{name}" -}}}}\n{_yaml(value)}{{{{- end }}}}\n'


def _labelled(document: dict[str, Any]) -> str:
    """The document with the chart's own labels beside its own."""
    metadata = dict(document["metadata"])
    own = metadata.pop("labels", {})
    lines = ["---", f"apiVersion: {document['apiVersion']}", f"kind: {document['kind']}", "metadata:"]
    lines += ["  " + line for line in _yaml(metadata).splitlines()]
    lines += ["  labels:", '    {{- include "scalingsweep.labels" $ | nindent 4 }}']
    lines += ["    " + line for line in _yaml(own).splitlines()] if own else []
    lines += ['  {{- include "scalingsweep.annotations" $ | nindent 2 }}']
    rest = {key: value for key, value in document.items() if key not in ("apiVersion", "kind", "metadata")}
    return "\n".join(lines) + "\n" + _yaml(rest)


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, width=10_000, default_flow_style=False)
    assert "{{" not in text, "a document of the project would be read as a template"
    text = text.replace(
        f"request.userInfo.username != '{STAND_IN.username}'",
        '!(request.userInfo.username in [{{ include "scalingsweep.operators" $ }}])',
    )
    assert STAND_IN.username not in text, "the operator's account is compared in a way that no template is made for"
    return text.replace(STAND_IN_LEASE, '{{ include "scalingsweep.fullname" $ }}')

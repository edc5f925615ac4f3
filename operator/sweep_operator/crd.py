"""From the models to CustomResourceDefinitions: structural schemas, defaults, bounds, rules and printed columns.

Owns what of pydantic's JSON schema a CRD can hold and in which form. States no rule of its own: fields, limits and
descriptions are the models' (`api/`), what spans fields is `api/rules.py`. `python -m sweep_operator.crd [FOLDER]`
writes one YAML file a resource.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sweep_analysis.recipe import Training
from sweep_operator.api import Placement, RunStatus, ScalingRun, ScalingSweep, SweepStatus
from sweep_operator.api.rules import RULES, SCALE_RULES

Schema = dict[str, Any]

MAX_BYTES = 256 * 1024
"""Larger ones could not be applied with plain `kubectl apply`, which keeps a copy in an annotation."""

LIST_KEYS: Mapping[tuple[str, str], tuple[str, ...]] = {
    (SweepStatus.__name__, "conditions"): ("type",),
    (SweepStatus.__name__, "rungs"): ("name", "revision"),
    (RunStatus.__name__, "conditions"): ("type",),
    (RunStatus.__name__, "records"): ("attempt",),
    (RunStatus.__name__, "attempts"): ("attempt",),
    (RunStatus.__name__, "accepted"): ("tokens",),
}
"""Lists whose entries have an identity, so that several writers may each keep their own; all others are atomic."""

OWN_DEFAULTS = (Placement.__name__, Training.__name__)
"""Whose left-out fields mean something of their own (another placement's, a rule's), so that the API server must not
fill them in; their defaults stand in the descriptions."""

_SCALE: Schema = {
    "x-kubernetes-int-or-string": True,
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "maxLength": 40,
    "x-kubernetes-validations": [rule.document() for rule in SCALE_RULES],
}
_KEPT = ("type", "enum", "pattern", "minLength", "maxLength", "minItems", "maxItems", "maxProperties", "maximum")


def _column(name: str, kind: str, path: str, description: str, priority: int = 0) -> Schema:
    column = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return column | ({"priority": priority} if priority else {})


_AGE = _column("Age", "date", ".metadata.creationTimestamp", "Since the object was created.")
SWEEP_COLUMNS = [
    _column("Rung", "string", ".status.printed.rung", "The rung that is being climbed."),
    _column("Runs", "string", ".status.printed.runs", "Of that rung's runs: done / all."),
    _column("Loss", "string", ".status.printed.loss", "Lowest loss of that rung, nats per token."),
    _column(
        "Forecast",
        "string",
        ".status.printed.forecast",
        "What its lowest loss was forecast to be, and the interval.",
    ),
    _column("Verdict", "string", ".status.printed.verdict", "Of that rung."),
    _column("Target", "string", ".status.printed.target", "The target's loss, forecast with its interval or observed."),
    _column("GPU-h", "string", ".status.printed.gpuHours", "GPU-hours spent so far."),
    _column("Phase", "string", ".status.phase", "Derived from the conditions."),
    _AGE,
    _column("Message", "string", '.status.conditions[?(@.type=="Progressing")].message', "What is going on.", 1),
]
RUN_COLUMNS = [
    _column("Sweep", "string", ".spec.sweep", "The sweep that the run belongs to."),
    _column("Rung", "string", ".spec.rung", "The rung that the run belongs to."),
    _column("Parameters", "integer", ".spec.run.parameters", "N, all trainable parameters."),
    _column("State", "string", ".status.state", "Where the run stands."),
    _column("Attempt", "integer", ".status.attempt", "The newest attempt."),
    _column("Step", "integer", ".status.progress.step", "The optimizer step last reported."),
    _column("Steps", "integer", ".status.progress.steps", "Optimizer steps of the whole run."),
    _column("Loss", "number", ".status.progress.loss", "Training loss as last reported, nats per token."),
    _AGE,
    _column("Purpose", "string", ".spec.run.purpose", "Why the run exists.", 1),
    _column("Workload", "string", ".status.workload.name", "The object that carries out the newest attempt.", 1),
]


def definitions() -> dict[str, Schema]:
    """Both CustomResourceDefinitions, by file name."""
    sweeps = _definition(ScalingSweep, "scalingsweeps", ["sweep", "sweeps"], SWEEP_COLUMNS)
    runs = _definition(ScalingRun, "scalingruns", ["srun"], RUN_COLUMNS)
    return {"scalingsweeps.yaml": sweeps, "scalingruns.yaml": runs}


def _definition(model: type[BaseModel], plural: str, short: list[str], columns: list[Schema]) -> Schema:
    kind = model.__name__
    names = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": short,
        "categories": ["scaling"],
    }
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema_of(model)},
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.scalingsweep.dev"},
        "spec": {"group": "scalingsweep.dev", "scope": "Namespaced", "names": names, "versions": [version]},
    }


def schema_of(model: type[BaseModel]) -> Schema:
    """The structural OpenAPI v3 schema of a resource."""
    whole = model.model_json_schema(by_alias=True, mode="validation")
    translation = _Translation(whole.pop("$defs"))
    schema = translation.object(model.__name__, whole, fill_in=True)
    properties = schema["properties"]
    properties["apiVersion"] = {"type": "string", "description": "The version of this form: scalingsweep.dev/v1alpha1."}
    properties["kind"] = {"type": "string", "description": f"{model.__name__}."}
    properties["metadata"] = {"type": "object"}
    properties["status"].pop("default", None)
    schema["required"] = ["spec"]
    return schema


class _Translation:
    """Pydantic's JSON schema, definition by definition, in the form that the API server takes."""

    def __init__(self, named: Mapping[str, Schema]) -> None:
        self.named = named
        self.rules = {model.__name__: rules for model, rules in RULES.items()}

    def object(self, name: str, given: Schema, *, fill_in: bool) -> Schema:
        """A model. `fill_in`: whether the API server may write down defaults."""
        fill_in = fill_in and name not in OWN_DEFAULTS and not name.endswith("Status")
        properties = {}
        for field, inner in given.get("properties", {}).items():
            translated = self.value(inner, fill_in=fill_in)
            if keys := LIST_KEYS.get((name, field)):
                translated |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
                items = translated["items"]
                items["required"] = sorted({*items.get("required", ()), *keys})
            properties[field] = translated
        schema: Schema = {"type": "object", "description": _one_line(given["description"]), "properties": properties}
        if required := given.get("required"):
            schema["required"] = list(required)
        if rules := self.rules.get(name):
            schema["x-kubernetes-validations"] = [rule.document() for rule in rules]
        return schema

    def value(self, given: Schema, *, fill_in: bool) -> Schema:
        """Any schema: of a field, a list's entry or a mapping's value."""
        if given.get("x-kubernetes-int-or-string"):
            schema = dict(_SCALE)
        elif given.get("additionalProperties") is True:
            schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        elif "$ref" in given:
            schema = self._named(given["$ref"], fill_in=fill_in)
        elif "anyOf" in given:
            schema = self._one_of([s for s in given["anyOf"] if s.get("type") != "null"], fill_in=fill_in)
        else:
            schema = self._plain(given, fill_in=fill_in)
        return schema | self._words(given, schema, fill_in=fill_in)

    def _named(self, reference: str, *, fill_in: bool) -> Schema:
        name = reference.rpartition("/")[2]
        given = self.named[name]
        if given.get("type") == "object":
            return self.object(name, given, fill_in=fill_in)
        return self.value(given, fill_in=fill_in)

    def _one_of(self, alternatives: list[Schema], *, fill_in: bool) -> Schema:
        """An optional value as it is; a union of models as one object with the fields of all, of which one set is
        required."""
        schemas = [self.value(alternative, fill_in=fill_in) for alternative in alternatives]
        if len(schemas) == 1:
            return schemas[0]
        first, *others = schemas
        for other in others:
            clash = [f for f in first["properties"].keys() & other["properties"] if not _same(first, other, f)]
            assert not clash, f"{clash} differ between the forms of a union"
        properties = {field: inner for schema in reversed(schemas) for field, inner in schema["properties"].items()}
        needs = [set(schema["required"]) for schema in schemas]
        common = set.intersection(*needs)
        own = [set(schema["properties"]) - common for schema in schemas]
        return {
            "type": "object",
            "description": " Or: ".join(schema["description"] for schema in schemas),
            "properties": properties,
            "required": sorted(common),
            "oneOf": [
                {"required": sorted(need - common), "not": {"anyOf": [{"required": [f]} for f in sorted(foreign)]}}
                for need, foreign in zip(needs, ({*properties} - common - mine for mine in own), strict=True)
            ],
        }

    def _plain(self, given: Schema, *, fill_in: bool) -> Schema:
        schema = {key: given[key] for key in _KEPT if key in given}
        if "const" in given:
            schema |= {"enum": [given["const"]]}
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if bound in given:
                schema[bound] = given[bound]
            if exclusive in given:
                schema |= {bound: given[exclusive], exclusive: True}
        if given.get("type") == "integer":
            schema["format"] = "int64"
        if given.get("type") == "array":
            schema["items"] = self.value(given["items"], fill_in=fill_in)
            schema["x-kubernetes-list-type"] = "atomic"
        if given.get("type") == "object":
            schema["additionalProperties"] = self.value(given["additionalProperties"], fill_in=fill_in)
        return schema

    def _words(self, given: Schema, schema: Schema, *, fill_in: bool) -> Schema:
        """The field's description and its default; the default in words where the API server must not fill it in."""
        words: Schema = {}
        description = _one_line(given.get("description", "")) or schema.get("description", "")
        default = given.get("default")
        if schema.get("type") == "object" and default is not None:
            brings = any("default" in field for field in schema.get("properties", {}).values())
            default = {} if brings else None  # its fields bring their own
        if default in (None, [], ""):
            pass
        elif fill_in:
            words["default"] = default
        elif isinstance(default, str | int | float):
            description = f"{description} {_left_out(default)}".strip()
        if description:
            words["description"] = description
        return words


def _left_out(default: Any) -> str:
    shown = str(default).lower() if isinstance(default, bool) else f"{default}"
    return f"{shown} when left out."


def _same(one: Schema, other: Schema, field: str) -> bool:
    a, b = one["properties"][field], other["properties"][field]
    return {k: v for k, v in a.items() if k != "description"} == {k: v for k, v in b.items() if k != "description"}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def render(definition: Schema) -> str:
    """A definition as YAML, with a first line that says where it comes from."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 120
    yaml.representer.ignore_aliases = lambda _: True
    text = StringIO("# Generated from operator/sweep_operator/api by `make crds`.\n")
    text.seek(0, 2)
    yaml.dump(definition, text)
    return text.getvalue()


def main(arguments: list[str]) -> int:
    """Write both definitions into the folder named, or into crds/."""
    folder = Path(arguments[0] if arguments else "crds")
    folder.mkdir(parents=True, exist_ok=True)
    for name, definition in definitions().items():
        (folder / name).write_text(render(definition), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

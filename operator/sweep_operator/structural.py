"""From pydantic's JSON schema to the structural OpenAPI v3 schema that a CustomResourceDefinition holds.

Owns the translation: unions as one object, exclusive bounds, lists with keys, and who fills in a default. States no
field and no rule of its own.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel

from sweep_analysis.recipe import Training
from sweep_analysis.record import Progress, Record, RecordSet
from sweep_operator.api import (
    Attempt,
    Condition,
    Placement,
    RungStatus,
    RunSpec,
    RunStatus,
    ScalingRun,
    SweepStatus,
    WorkloadReference,
)
from sweep_operator.api.rules import RULES, SCALE_RULES

Schema = dict[str, Any]

LIST_KEYS: Mapping[tuple[str, str], tuple[str, ...]] = {
    (SweepStatus.__name__, "conditions"): ("type",),
    (SweepStatus.__name__, "rungs"): ("name", "revision"),
    (RunStatus.__name__, "conditions"): ("type",),
    (RunStatus.__name__, "records"): ("attempt",),
    (RunStatus.__name__, "attempts"): ("attempt",),
    (RunStatus.__name__, "accepted"): ("tokens",),
}
"""Lists whose entries have an identity, so that several writers may each keep their own; all others are atomic."""

WRITTEN_WHOLE = {
    model.__name__
    for model in (Attempt, Condition, Progress, Record, RecordSet, RungStatus, RunSpec, WorkloadReference)
}
"""Objects that one writer always writes as a whole: the API server then keeps account of the object rather than of its
fields, which makes every write of what holds it cheaper."""

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


class Defaults(Enum):
    """Who fills in what was left out."""

    WRITTEN = "the API server, in the stored object"
    TOLD = "the reader; the description says with what"
    NONE = "nobody: a status holds what its writer wrote"


def structural(model: type[BaseModel]) -> Schema:
    """The schema of a whole resource, its metadata left to the API server."""
    whole = model.model_json_schema(by_alias=True, mode="validation")
    schema = Translation(whole.pop("$defs")).object(model.__name__, whole, Defaults.WRITTEN)
    properties = schema["properties"]
    properties["apiVersion"] = {"type": "string", "description": "The version of this form: scalingsweep.dev/v1alpha1."}
    properties["kind"] = {"type": "string", "description": f"{model.__name__}."}
    properties["metadata"] = {"type": "object"}
    if model is ScalingRun:  # which is queued from its creation on, before anybody has written its status
        state = properties["status"]["properties"]["state"]
        state["default"] = RunStatus().state.value
        properties["status"]["default"] = {}
    schema["required"] = ["spec"]
    return schema


class Translation:
    """Pydantic's JSON schema, definition by definition, in the form that the API server takes."""

    def __init__(self, named: Mapping[str, Schema]) -> None:
        self.named = named
        self.rules = {model.__name__: rules for model, rules in RULES.items()}

    def object(self, name: str, given: Schema, defaults: Defaults) -> Schema:
        """A model."""
        if name in OWN_DEFAULTS and defaults is Defaults.WRITTEN:
            defaults = Defaults.TOLD
        if name.endswith("Status"):
            defaults = Defaults.NONE
        properties = {}
        for field, inner in given.get("properties", {}).items():
            translated = self.value(inner, defaults)
            if keys := LIST_KEYS.get((name, field)):
                translated |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
                items = translated["items"]
                items["required"] = sorted({*items.get("required", ()), *keys})
            properties[field] = translated
        schema: Schema = {"type": "object", "description": _one_line(given["description"]), "properties": properties}
        if name in WRITTEN_WHOLE:
            schema["x-kubernetes-map-type"] = "atomic"
        if required := given.get("required"):
            schema["required"] = list(required)
        if rules := self.rules.get(name):
            schema["x-kubernetes-validations"] = [rule.document() for rule in rules]
        return schema

    def value(self, given: Schema, defaults: Defaults) -> Schema:
        """Any schema: of a field, a list's entry or a mapping's value."""
        if given.get("x-kubernetes-int-or-string"):
            schema = dict(_SCALE)
        elif given.get("additionalProperties") is True:
            schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        elif "$ref" in given:
            schema = self._named(given["$ref"], defaults)
        elif "anyOf" in given:
            schema = self._one_of([s for s in given["anyOf"] if s.get("type") != "null"], defaults)
        else:
            schema = self._plain(given, defaults)
        return schema | self._words(given, schema, defaults)

    def _named(self, reference: str, defaults: Defaults) -> Schema:
        name = reference.rpartition("/")[2]
        given = self.named[name]
        if given.get("type") == "object":
            return self.object(name, given, defaults)
        return self.value(given, defaults)

    def _one_of(self, alternatives: list[Schema], defaults: Defaults) -> Schema:
        """An optional value as it is; a union of models as one object with the fields of all, of which one set is
        required."""
        schemas = [self.value(alternative, defaults) for alternative in alternatives]
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

    def _plain(self, given: Schema, defaults: Defaults) -> Schema:
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
            schema["items"] = self.value(given["items"], defaults)
            schema["x-kubernetes-list-type"] = "atomic"
        if given.get("type") == "object":
            schema["additionalProperties"] = self.value(given["additionalProperties"], defaults)
        return schema

    def _words(self, given: Schema, schema: Schema, defaults: Defaults) -> Schema:
        """The field's description and its default, written or told."""
        words: Schema = {}
        description = _one_line(given.get("description", "")) or schema.get("description", "")
        default = given.get("default")
        if schema.get("type") == "object" and default is not None:
            brings = any("default" in field for field in schema.get("properties", {}).values())
            default = {} if brings else None  # its fields bring their own
        if default in (None, [], ""):
            pass
        elif defaults is Defaults.WRITTEN:
            words["default"] = default
        elif defaults is Defaults.TOLD and isinstance(default, str | int | float):
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

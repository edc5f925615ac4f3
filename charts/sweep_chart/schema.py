"""values.yaml, values.schema.json and the README's table, all three from `values.Values`.

Owns their form. The schema refuses unknown keys at every level that is ours and passes what Kubernetes will check.
"""

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from sweep_chart.values import Values

WIDTH = 110


@dataclass(frozen=True, slots=True)
class Value:
    """One value that can be set."""

    path: str
    default: Any
    meaning: str


def values_yaml() -> str:
    """The chart's values.yaml: every key with its default, and above it what it means."""
    head = "# Written by `make chart` from charts/sweep_chart/values.py; what each key means is also in README.md.\n"
    return head + "".join(_yaml_of(Values(), 0))


def values_schema() -> str:
    """The JSON schema by which Helm checks what a user sets."""
    schema = Values.model_json_schema(by_alias=True, mode="validation")
    schema = _without_titles(schema)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"]["global"] = {"type": "object", "description": "Set by a parent chart; not used here."}
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def values_table() -> str:
    """A Markdown table of every value."""
    lines = ["| Value | Default | Meaning |", "|---|---|---|"]
    for value in _values(Values, ""):
        default = f"`{json.dumps(value.default)}`" if value.default is not ... else ""
        lines.append(f"| `{value.path}` | {default} | {value.meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def _values(model: type[BaseModel], prefix: str) -> Iterator[Value]:
    for name, field in model.model_fields.items():
        path = prefix + to_camel(name)
        inner = _document(field)
        if inner is not None and not _is_list(field):
            yield from _values(inner, path + ".")
            continue
        default = ... if field.is_required() else _plain(field.get_default(call_default_factory=True))
        yield Value(path, default, _sentence(field, inner))
        if inner is not None:
            yield from _values(inner, path + "[].")


def _sentence(field: FieldInfo, inner: type[BaseModel] | None) -> str:
    text = field.description or (inner.__doc__ if inner else "") or ""
    return " ".join(text.split())


def _yaml_of(document: BaseModel, depth: int) -> Iterator[str]:
    pad = "  " * depth
    for name, field in type(document).model_fields.items():
        value, key = getattr(document, name), to_camel(name)
        inner = _document(field)
        for line in textwrap.wrap(_sentence(field, inner), WIDTH - len(pad) - 2):
            yield f"{pad}# {line}\n"
        if isinstance(value, BaseModel):
            body = list(_yaml_of(value, depth + 1))
            if all(line.lstrip().startswith("#") for line in body):
                yield f"{pad}{key}: {{}}\n"
            else:
                yield f"{pad}{key}:\n"
            yield from body
        elif value is None:
            yield f"{pad}# {key}: not set\n"
        else:
            yield from _yaml_entry(pad, key, _plain(value))
        if depth == 0:
            yield "\n"


def _yaml_entry(pad: str, key: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        yield f"{pad}{key}:\n"
        for name, entry in value.items():
            yield from _yaml_entry(pad + "  ", name, entry)
    else:
        yield f"{pad}{key}: {json.dumps(value)}\n"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    return list(value) if isinstance(value, tuple) else value


def _is_list(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is tuple


def _document(field: FieldInfo) -> type[BaseModel] | None:
    """The model that a field holds, or holds a list of."""
    found = [a for a in (field.annotation, *get_args(field.annotation)) if isinstance(a, type)]
    if get_origin(field.annotation) in (Union, UnionType):
        return None
    return next((a for a in found if issubclass(a, BaseModel)), None)


def _without_titles(node: Any) -> Any:
    """The schema less pydantic's titles; a property may still be called `title`."""
    if isinstance(node, list):
        return [_without_titles(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    return {key: _without_titles(value) for key, value in node.items() if key != "title" or isinstance(value, dict)}

"""Writes the tables of docs/resources.md from the models: `make crds`, or `python docs/resources.py`.

Owns the page's tables alone; the prose around them is written by hand and kept as it is.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.api.rules import RULES, Rule

PAGE = Path(__file__).with_name("resources.md")
BEGIN, END = "<!-- generated: {} -->\n", "<!-- end -->\n"
Schema = dict[str, Any]

_LIMITS = (
    ("minimum", "≥ {}"),
    ("exclusiveMinimum", "> {}"),
    ("maximum", "≤ {}"),
    ("exclusiveMaximum", "< {}"),
    ("maxLength", "≤ {} characters"),
)


def page(text: str) -> str:
    """The page with its tables anew."""
    for model in (ScalingSweep, ScalingRun):
        begin = BEGIN.format(model.__name__)
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(END)
        assert found, f"the page has no line {begin.strip()}"
        assert ended, f"the page has no line {END.strip()} after {begin.strip()}"
        text = before + begin + "\n" + "\n".join(_resource(model)) + "\n" + END + after
    return text


def _resource(model: type[BaseModel]) -> Iterator[str]:
    """Every object of a resource, each once, in the order in which it is met."""
    whole = model.model_json_schema(by_alias=True)
    named: dict[str, Schema] = whole.pop("$defs")
    rules = {one.__name__: one_rules for one, one_rules in RULES.items()}
    seen, waiting = set[str](), [model.__name__]
    while waiting:
        name = waiting.pop(0)
        if name in seen or name == "Metadata":
            continue
        seen.add(name)
        given = whole if name == model.__name__ else named[name]
        if given.get("type") != "object":
            continue
        yield from _object(name, given, named, rules.get(name, ()))
        within = [met for field in given["properties"].values() for met in _references(field)]
        waiting = [*[name for name in within if name not in seen], *waiting]


def _object(name: str, given: Schema, named: dict[str, Schema], rules: tuple[Rule, ...]) -> list[str]:
    lines = [f"### {name}", "", _words(given["description"]), "", "| field | form | |", "|---|---|---|"]
    for field, inner in given["properties"].items():
        if field in ("apiVersion", "kind", "metadata") and name.startswith("Scaling"):
            continue
        description = _words(inner.get("description") or _described(inner, named))
        needed = "**required**" if field in given.get("required", ()) else _default(inner)
        lines.append(f"| `{field}` | {_form(inner, named)} | {' '.join(filter(None, (description, needed)))} |")
    if rules:
        lines += ["", "Refused otherwise:", "", *(f"- {rule.message}" for rule in rules)]
    return [*lines, ""]


def _references(schema: Schema) -> Iterator[str]:
    if "$ref" in schema:
        yield schema["$ref"].rpartition("/")[2]
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _references(schema[key])
    for alternative in schema.get("anyOf", ()):
        yield from _references(alternative)


def _described(schema: Schema, named: dict[str, Schema]) -> str:
    met = next(_references(schema), None)
    return str(named[met].get("description", "")) if met else ""


def _form(schema: Schema, named: dict[str, Schema]) -> str:
    """A type and its limits, in words."""
    if schema.get("x-kubernetes-int-or-string"):
        return "[size](#sizes)"
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        given = named[name]
        return _choice(given["enum"]) if "enum" in given else f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_form(one, named) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return _choice(schema.get("enum") or [schema["const"]])
    if schema.get("type") == "array":
        most = f" (≤ {schema['maxItems']})" if "maxItems" in schema else ""
        return f"list{most} of {_form(schema['items'], named)}"
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        return f"mapping to {_form(inner, named)}" if isinstance(inner, dict) else "mapping"
    kind = {"string": "text", "integer": "whole number", "boolean": "`true` or `false`"}.get(schema["type"], "number")
    limits = [words.format(_shown(schema[key])) for key, words in _LIMITS if key in schema]
    return ", ".join([kind, *limits])


def _choice(words: list[Any]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _default(schema: Schema) -> str:
    default = schema.get("default")
    if default is None or default in ("", [], {}) or isinstance(default, dict):
        return ""
    return f"Default: `{_shown(default)}`."


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _words(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """Rewrite the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

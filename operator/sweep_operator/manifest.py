"""From a YAML file to a ScalingSweep, or to one sentence: what is wrong with it, where, and what would be right.

Owns the reading of YAML 1.2 and the wording of every refusal that the schema makes. Checks nothing that needs more than
the document: that is acceptance's.
"""

import difflib
import json
import math
import re
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from sweep_analysis.scale import format_scale
from sweep_operator.api import API_VERSION, ScalingSweep
from sweep_operator.policy import Policy

MAX_BYTES = 1 << 20
"""As much as an API server takes."""
MAX_NODES = 100_000
LARGEST_BARE = 2**63 - 1
"""An API server reads no larger whole number; sizes beyond it are texts there."""


class ManifestError(Exception):
    """The manifest is not taken; the text is one sentence, `faults` has all of them."""

    def __init__(self, text: str, faults: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.faults = tuple(faults) or (text,)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A document as its author wrote it, and what it means."""

    path: Path
    written: dict[str, Any]
    """Plain JSON values, without status and without what only a server sets."""
    sweep: ScalingSweep


def read_manifest(path: Path) -> Manifest:
    """The one ScalingSweep in the file. Raises ManifestError."""
    documents = list(read_documents(path))
    if not documents:
        raise ManifestError(f"{path} is empty; it should hold one ScalingSweep")
    foreign = next((d for d in documents if not _is_sweep(d)), None)
    if foreign is not None:
        raise ManifestError(_not_a_sweep(path, foreign, documents.index(foreign) + 1, len(documents)))
    if len(documents) > 1:
        raise ManifestError(f"{path} holds {len(documents)} ScalingSweeps; one at a time, in a file of its own each")
    return understand(path, documents[0])


def understand(path: Path, document: dict[str, Any]) -> Manifest:
    """Validate one document. Raises ManifestError with the first fault and the count of the others."""
    written = {key: value for key, value in document.items() if key != "status"}
    if isinstance(metadata := written.get("metadata"), dict):
        server_set = {"uid", "generation", "resourceVersion", "creationTimestamp", "managedFields", "selfLink"}
        written["metadata"] = {k: v for k, v in metadata.items() if k not in server_set}
    try:
        sweep = ScalingSweep.model_validate_json(json.dumps(written), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise _refusal(path, error, ScalingSweep) from None
    return Manifest(path, written, sweep)


def read_policy(path: Path | None) -> Policy:
    """The platform's policy: one YAML mapping of the fields of `Policy`; everything is allowed without a file."""
    if path is None:
        return Policy()
    documents = list(read_documents(path))
    if len(documents) != 1:
        raise ManifestError(f"{path} holds {len(documents)} documents; a policy is one mapping")
    try:
        return Policy.model_validate_json(json.dumps(documents[0]), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise _refusal(path, error, Policy) from None


def read_documents(path: Path) -> Iterator[dict[str, Any]]:
    """The non-empty YAML documents of a file, each a mapping. Raises ManifestError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    class Constructor(SafeConstructor):
        """A date stays the text that it is, as for an API server; a number means to us what it means to kubectl."""

        def construct_yaml_int(self, node: Any) -> int:
            if re.fullmatch("[-+]?0[0-7_]*[1-7][0-7_]*", node.value):
                line = node.start_mark.line + 1
                raise ManifestError(
                    f"{path}, line {line}: {node.value} begins with a zero, which kubectl reads as an octal number;"
                    " leave the zero out"
                )
            return int(super().construct_yaml_int(node))

    Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)
    Constructor.add_constructor("tag:yaml.org,2002:int", Constructor.construct_yaml_int)
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = Constructor
    text = _text(path)
    try:
        documents = [_plain(value, path) for value in yaml.load_all(text)]
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        key = str(error.problem).split('"')[1] if '"' in str(error.problem) else str(error.problem)
        raise ManifestError(f"{path}, line {line}: the key {key!r} stands there twice; keep one of them") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise ManifestError(f"{path}{where}: not YAML: {error.problem or error.context}") from None
    except (YAMLError, ValueError) as error:
        raise ManifestError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ManifestError(f"{path}: nested too deeply to be a manifest") from None
    for number, document in enumerate(documents, 1):
        if document is None:
            continue
        if not isinstance(document, dict):
            said = f"{path}: document {number} is {_kind(document)}"
            raise ManifestError(f"{said}; a manifest is a mapping with apiVersion, kind and spec")
        yield document


def unsendable(path: Path, document: dict[str, Any]) -> list[str]:
    """What a cluster would refuse although it means something here: bare numbers beyond 64 bits, one sentence each."""
    return [
        f"{path}: {field_path(where)}: {number:g} is too large for a bare number on a cluster;"
        f' put it in quotes: "{format_scale(number)}"'
        for where, number in _numbers(document)
        if abs(number) > LARGEST_BARE
    ]


def _numbers(value: Any, where: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], float]]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield where, value
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from _numbers(inner, (*where, key))


def wrong_spec(error: ValidationError) -> str:
    """What a sweep's author did wrong, in the words of `lint`; empty where something else is at fault.

    A field of no name that this version knows may be a newer version's, and a status is no author's.
    """
    found = error.errors()
    if any(fault["loc"][:1] != ("spec",) or fault["type"] == "extra_forbidden" for fault in found):
        return ""
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return _fault(found[0], ScalingSweep) + more


def field_path(location: Sequence[str | int]) -> str:
    """`spec.ladder.rungs[2].parameters`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _refusal(path: Path, error: ValidationError, model: type[BaseModel]) -> ManifestError:
    found = error.errors()
    # A list whose entries were refused is also called too short; that says nothing new.
    echoes = {fault["loc"][:k] for fault in found for k in range(len(fault["loc"]))}
    kept = [fault for fault in found if not (fault["type"] == "too_short" and fault["loc"] in echoes)]
    faults = [f"{path}: {_fault(fault, model)}" for fault in kept]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return ManifestError(faults[0] + more, faults)


def _fault(fault: Any, root: type[BaseModel]) -> str:
    location, given = tuple(fault["loc"]), fault["input"]
    where, kind, limits = field_path(location), fault["type"], fault.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{where}: there is no such field{_nearest(str(location[-1]), _fields_at(root, location[:-1]))}"
    if kind == "missing":
        return f"{where}: is missing"
    if kind == "value_error":
        return f"{where}: {limits['error']}"
    if kind in ("literal_error", "enum"):
        allowed = str(limits["expected"]).replace("'", "")
        near = _nearest(str(given), allowed.replace(" or ", ", ").split(", "), list_them=False)
        return f"{where}: {_shown(given)} is not one of {allowed}{near}"
    if kind == "string_pattern_mismatch":
        return f"{where}: {_shown(given)} is not taken; {_FORMS.get(str(location[-1]), _NAME)}"
    wanted = _WANTED.get(kind)
    if wanted is None:
        return f"{where}: {_shown(given)}: {fault['msg'][0].lower()}{fault['msg'][1:]}"
    return f"{where}: {_shown(given)} is not taken; {wanted.format(**limits)}"


_NAME = "use lower-case letters, digits and '-', beginning and ending with a letter or digit"
_FORMS = {
    "gpuMemory": "write a quantity of memory such as 80Gi",
    "cpu": "write a quantity such as 500m or 8",
} | dict.fromkeys(("memory", "sharedMemory", "emptyDirSize", "size"), "write a quantity such as 64Gi")
"""What a text that must have a form should look like, by its field; the others are names."""

_WANTED = {
    "bool_type": "it must be true or false",
    "bool_parsing": "it must be true or false",
    "string_type": "it must be a text; put it in quotes",
    "int_type": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "float_type": "it must be a number",
    "float_parsing": "it must be a number",
    "finite_number": "it must be a finite number",
    "greater_than": "it must be greater than {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be less than {lt}",
    "less_than_equal": "it must be at most {le}",
    "tuple_type": "it must be a list",
    "list_type": "it must be a list",
    "dict_type": "it must be a mapping",
    "model_type": "it must be a mapping",
    "too_short": "it needs at least {min_length} entries",
    "too_long": "it may have at most {max_length} entries",
    "string_too_long": "it may have at most {max_length} characters",
    "string_too_short": "it needs at least {min_length} characters",
}


def _fields_at(root: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Names (as written in YAML) of the fields that the model at that place has."""
    model: Any = root
    for part in location:
        if isinstance(part, str):
            fields = model.model_fields.values() if _is_model(model) else ()
            model = next((f.annotation for f in fields if f.alias == part), None)
        model = _inner_model(model)
    return [str(f.alias) for f in model.model_fields.values()] if _is_model(model) else []


def _inner_model(annotation: Any) -> Any:
    """The model within an optional or a tuple of models."""
    if _is_model(annotation):
        return annotation
    return next((found for a in typing.get_args(annotation) if (found := _inner_model(a)) is not None), None)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _nearest(word: str, known: Sequence[str], *, list_them: bool = True) -> str:
    """`; did you mean …?`, or what there is."""
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not match:
        folded = {k.lower(): k for k in known}
        match = [folded[m] for m in difflib.get_close_matches(word.lower(), list(folded), n=1, cutoff=0.6)]
    if match:
        return f"; did you mean {match[0]}?"
    return f"; there are {', '.join(known)}" if list_them and 0 < len(known) <= 12 else ""


def _text(path: Path) -> str:
    try:
        if path.is_dir():
            raise ManifestError(f"{path} is a folder; name the manifest's file")
        if path.stat().st_size > MAX_BYTES:
            raise ManifestError(f"{path} is larger than 1 MiB; that is no manifest")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ManifestError(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path} is not a text file (UTF-8)") from None
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}") from None


def _plain(value: Any, path: Path) -> Any:
    """The value as plain JSON types; YAML's aliases may not multiply it beyond reason."""
    left = MAX_NODES

    def convert(node: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ManifestError(f"{path}: more than {MAX_NODES:,} values; that is no manifest")
        if isinstance(node, dict):
            for key in node:
                if not isinstance(key, str):
                    raise ManifestError(f"{path}: the key {key!r} is {_kind(key)}; keys are texts, put it in quotes")
            return {key: convert(inner) for key, inner in node.items()}
        if isinstance(node, list | tuple):
            return [convert(inner) for inner in node]
        if node is None or isinstance(node, str | bool | int | float):
            return node
        raise ManifestError(f"{path}: {node!r} is {_kind(node)}, which no manifest holds")

    return convert(value)


def _is_sweep(document: dict[str, Any]) -> bool:
    return document.get("kind") == "ScalingSweep" and document.get("apiVersion") == API_VERSION


def _not_a_sweep(path: Path, document: dict[str, Any], number: int, count: int) -> str:
    kind, version = document.get("kind"), document.get("apiVersion")
    which = f"document {number} " if count > 1 else ""
    if kind == "ScalingSweep":
        return f"{path}: {which}apiVersion is {_shown(version)}; this version reads {API_VERSION}"
    if kind is None:
        return f"{path}: {which}has no kind; it should say apiVersion: {API_VERSION} and kind: ScalingSweep"
    return f"{path}: {which}is a {kind}; this command takes one ScalingSweep and nothing else"


def _shown(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "infinity", -math.inf: "-infinity"}.get(value, "NaN")
    if isinstance(value, dict | list):
        return _kind(value)
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _kind(value: Any) -> str:
    names = {
        dict: "a mapping",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), type(value).__name__)

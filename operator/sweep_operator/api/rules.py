"""What spans fields, as the API server checks it: CEL rules, each with the sentence that a person reads.

Owns the expressions. A rule mirrors a validator of its model, with the same sentence; a test holds the two together on
the real API server. Rules with `oldSelf` speak of changes, which no model can see. What CEL cannot afford or cannot see
(exact parameter counts, whether a design identifies its law) is acceptance's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from sweep_analysis.scale import PATTERN
from sweep_analysis.sources import Data
from sweep_operator.api.run import ScalingRun
from sweep_operator.api.status import RungStatus
from sweep_operator.api.sweep import Generate, Ladder, RecordsSource, RungRuns, ScalingSweep, SweepSpec
from sweep_operator.api.workload import EnvironmentSource, EnvironmentVariable, Runtime, Storage, Volume


@dataclass(frozen=True, slots=True)
class Rule:
    """One `x-kubernetes-validations` entry.

    `field`: where the fault is shown, below the object of the rule. `wording`: CEL for a message with the value in it.
    """

    expression: str
    message: str
    field: str = ""
    wording: str = ""

    def document(self) -> dict[str, str]:
        """As a CRD holds it."""
        optional = {"fieldPath": self.field, "messageExpression": self.wording}
        return {"rule": self.expression, "message": self.message} | {k: v for k, v in optional.items() if v}


_SIZE = f"matches({json.dumps(PATTERN)})"
_QUANTITY = r"matches('^ *[0-9]+([.][0-9]+)? *([kmGgbtKMBT]|[KMGT]i)? *$')"
_MEANT = "replace(' ', '').replace('i', '').replace('k', 'K').replace('m', 'M')" + "".join(
    f".replace('{wrong}', '{right}')" for wrong, right in (("G", "B"), ("g", "B"), ("b", "B"), ("t", "T"))
)


def _number(scale: str) -> str:
    """CEL for a Scale as a double: 30M, 1.4T, "1e21" or an integer; -1 for what is no size."""
    head = f"double({scale}.substring(0, {scale}.size() - 1))"
    suffixes = " : ".join(
        f"{scale}.endsWith('{letter}') ? {head} * {factor}"
        for letter, factor in (("K", "1e3"), ("M", "1e6"), ("B", "1e9"), ("T", "1e12"))
    )
    text = f"!{scale}.{_SIZE} ? -1.0 : {suffixes} : double({scale})"
    return f"(type({scale}) != string ? double({scale}) : {text})"


_NO_SIZE = f"type(self) == string && !self.{_SIZE}"
_NEARLY_WHOLE = "[x - double(int(x + 0.5))].all(rest, rest * rest <= 1e-24 * x * x)"  # 1.001K is 1000.9999999999999
SCALE_RULES = (
    Rule(
        f"!({_NO_SIZE})",
        "this is not a size; write a whole number or a string like 30M, 1.4T or 1e21 (K, M, B, T are decimal)",
        wording=f'"\'" + self + (self.{_QUANTITY}'
        f" ? \"' is not a size: did you mean \" + self.{_MEANT} + '? (K, M, B, T are decimal)'"
        ' : "\' is not a size; write a whole number or a string like 30M, 1.4T or 1e21")',
    ),
    Rule(
        f"{_NO_SIZE} || {_number('self')} > 0.0",
        "a size must be greater than zero",
        wording="string(self) + ' is not a size: it must be greater than zero'",
    ),
    Rule(
        f"{_NO_SIZE} || [{_number('self')}].all(x, x <= 0.0 || x > 9e18 || {_NEARLY_WHOLE})",
        "a size must be a whole number",
        wording='"\'" + string(self) + "\' is not a whole number"',
    ),
)
"""Of every size; a Kubernetes quantity is answered with the size that was probably meant."""


def _given_once(*fields: str) -> str:
    """CEL for: exactly one of these fields is there."""
    return f"[{', '.join(f'has(self.{field})' for field in fields)}].filter(there, there).size() == 1"


def _increasing(field: str) -> Rule:
    pairs = f"[1, 2, 3, 4, 5, 6, 7].all(i, i >= self.{field}.size() || self.{field}[i] > self.{field}[i - 1])"
    return Rule(pairs, "the values must increase", f".{field}")


def _frozen(field: str) -> Rule:
    """The field stays as it was once forecasts are made by it; `status.frozen` is written with the first of them."""
    parts = field.split(".")
    there = [".".join(("spec", *parts[:depth])) for depth in range(2, len(parts) + 1)]
    path = f"spec.{field}"
    if field in _ALWAYS_THERE:
        same = f"self.{path} == oldSelf.{path}"
    else:
        new = " && ".join(f"has(self.{p})" for p in (there or [path]))
        old = new.replace("self.", "oldSelf.")
        same = f"({new}) == ({old}) && (!({new}) || self.{path} == oldSelf.{path})"
    return Rule(
        f"!has(oldSelf.status) || !has(oldSelf.status.frozen) || oldSelf.status.frozen.size() == 0 || ({same})",
        f"spec.{field} may not change once a forecast has been written; apply a new sweep",
        f".spec.{field.split('.')[0]}",
    )


_ALWAYS_THERE = ("law", "gate", "training", "target.parameters", "target.tokens")
_FROZEN = (*_ALWAYS_THERE, "target.maxLoss", "target.inferenceTokens", "ladder.generate", "storage", "records")

_LARGEST_OF_THIS = f"self.rungs[i].runs.map(r, {_number('r.parameters')}).max()"
_LARGEST_BEFORE = _LARGEST_OF_THIS.replace("[i]", "[i - 1]")
_INDICES = ", ".join(str(i) for i in range(1, 32))

RULES: Mapping[type[BaseModel], tuple[Rule, ...]] = {
    ScalingSweep: (
        Rule("self.metadata.name.size() <= 63", "metadata.name may have at most 63 characters: it becomes a label"),
        *(_frozen(field) for field in _FROZEN),
        Rule(
            "!has(oldSelf.status) || !has(oldSelf.status.rungs)"
            " || oldSelf.status.rungs.all(old, !has(old.forecast) || (has(self.status) && has(self.status.rungs)"
            " && self.status.rungs.exists(r, r.name == old.name && r.revision == old.revision)))",
            "a rung that was forecast stays in the status, with its forecast",
            ".status.rungs",
        ),
        Rule(
            "!has(oldSelf.status) || !has(oldSelf.status.imports) || (has(self.status) && has(self.status.imports)"
            " && self.status.imports.digest == oldSelf.status.imports.digest)",
            "records that were imported stay in the status: forecasts were made from them",
            ".status.imports",
        ),
    ),
    RecordsSource: (Rule(_given_once("configMap", "file"), "name exactly one of configMap and file"),),
    SweepSpec: (Rule("!oldSelf.abort || self.abort", "an aborted sweep stays aborted; apply a new one", ".abort"),),
    Ladder: (
        Rule(
            "has(self.generate) != (has(self.rungs) && self.rungs.size() > 0)",
            "name exactly one of rungs and generate",
        ),
        Rule(
            "!has(self.rungs) || self.rungs.all(rung, self.rungs.exists_one(other, other.name == rung.name))",
            "two rungs have the same name; every rung needs a name of its own",
            ".rungs",
        ),
        Rule(
            "!has(self.rungs) || self.rungs.all(rung, rung.name != 'target')",
            "'target' is the name of the target itself; name the rung otherwise",
            ".rungs",
        ),
        Rule(
            f"!has(self.rungs) || [{_INDICES}].all(i, i >= self.rungs.size()"
            f" || [{_LARGEST_OF_THIS}].all(this, this < 0.0 || this > {_LARGEST_BEFORE}))",
            "every rung must be larger than the one before it; sizes must increase",
            ".rungs",
        ),
    ),
    Generate: (
        Rule(
            f"[{_number('self.to')}].all(to, to < 0.0 || to > {_number('self.from')})",
            "the ladder must grow: to must be above from",
        ),
        _increasing("tokensPerParameter"),
    ),
    RungRuns: (_increasing("tokensPerParameter"),),
    Data: (
        Rule(
            "[has(self.corpus), has(self.files) && self.files.size() > 0, has(self.sources) && self.sources.size() > 0]"
            ".filter(there, there).size() == 1",
            "name exactly one of corpus, files and sources",
        ),
        Rule(
            "!has(self.validationShare) || (has(self.sources) && self.sources.size() > 0)",
            "validationShare is for sources; of corpus and files, every 40th block is validation",
        ),
    ),
    EnvironmentSource: (Rule(_given_once("configMap", "secret"), "name exactly one of configMap and secret"),),
    EnvironmentVariable: (
        Rule(
            "!self.name.startsWith('SCALINGSWEEP_')",
            "variables that begin with SCALINGSWEEP_ are set by the operator; choose another name",
            ".name",
        ),
    ),
    Volume: (
        Rule(
            _given_once("claimName", "configMap", "secret", "emptyDirSize"),
            "name exactly one of claimName, configMap, secret and emptyDirSize",
        ),
    ),
    Runtime: (
        Rule(
            "!has(self.volumes) || self.volumes.all(v, self.volumes.exists_one(other, other.name == v.name))",
            "two volumes have the same name; every volume needs a name of its own",
            ".volumes",
        ),
    ),
    Storage: (
        Rule(_given_once("uri", "claim"), "name exactly one of uri and claim"),
        Rule(
            "!has(self.uri) || self.whenDeleted != 'Delete'",
            "whenDeleted: Delete is for the operator's own claim; what uri names is always kept",
        ),
    ),
    RungStatus: (
        Rule(
            "!has(oldSelf.forecast) || (has(self.forecast) && self.forecast == oldSelf.forecast)",
            "a forecast is written once, before the rung's runs, and never changed",
            ".forecast",
        ),
    ),
    ScalingRun: (
        Rule("self.spec == oldSelf.spec", "the spec of a run never changes; another run has another name", ".spec"),
    ),
}
"""Of each model, in the order in which they are checked."""

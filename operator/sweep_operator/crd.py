"""The two CustomResourceDefinitions: names, printed columns, and the schemas made of the models.

Owns the columns and the files. Fields, limits and descriptions are the models' (`api/`), what spans fields is
`api/rules.py`, their form is `structural.py`'s. `python -m sweep_operator.crd [FOLDER]` writes a YAML file for each.
"""

import sys
from pathlib import Path

from pydantic import BaseModel

from sweep_operator.api import ScalingRun, ScalingSweep
from sweep_operator.structural import Schema, structural

MAX_BYTES = 256 * 1024
"""Larger ones could not be applied with plain `kubectl apply`, which keeps a copy in an annotation."""


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
        "schema": {"openAPIV3Schema": structural(model)},
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.scalingsweep.dev"},
        "spec": {"group": "scalingsweep.dev", "scope": "Namespaced", "names": names, "versions": [version]},
    }


def render(definition: Schema) -> str:
    """A definition as YAML, with a first line that says where it comes from."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 120
    yaml.representer.ignore_aliases = lambda _: True
    text = StringIO()
    yaml.dump(definition, text)
    return "# Generated from operator/sweep_operator/api by `make crds`.\n" + text.getvalue()


def main(arguments: list[str]) -> int:
    """Write both definitions into the folder named, or into crds/."""
    folder = Path(arguments[0] if arguments else "crds")
    folder.mkdir(parents=True, exist_ok=True)
    for name, definition in definitions().items():
        (folder / name).write_text(render(definition), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

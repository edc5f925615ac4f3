"""The chart under test: rendered by the real helm, and its documents judged by the published schemas."""

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts" / "scalingsweep"
SHARED = Path(os.environ.get("SCALINGSWEEP_SHARED", ROOT / "../shared"))
MONITORING = tuple(
    f"--api-versions=monitoring.coreos.com/v1/{kind}" for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule")
)
KUEUE = ("--api-versions=kueue.x-k8s.io/v1beta2",)

Documents = list[dict[str, Any]]


class Helm:
    """The real helm, against one cluster or none."""

    def __init__(self, program: Path, home: Path, kubeconfig: Path | None = None) -> None:
        self._program, self._home = program, home
        self._environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
        if kubeconfig:
            self._environment["KUBECONFIG"] = str(kubeconfig)

    def on(self, kubeconfig: Path) -> "Helm":
        """The same helm, on a cluster."""
        return Helm(self._program, self._home, kubeconfig)

    def __call__(
        self, *arguments: str, values: dict[str, Any] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run it; `values` are given as a file."""
        given = ["--values", "-"] if values is not None else []
        done = subprocess.run(
            [str(self._program), *arguments, *given],
            input=json.dumps(values) if values is not None else None,
            capture_output=True,
            text=True,
            timeout=120,
            env=self._environment,
        )
        if check and done.returncode:
            raise AssertionError(f"helm {' '.join(arguments)}: {done.stderr.strip()}")
        return done

    def documents(
        self, *arguments: str, values: dict[str, Any] | None = None, release: str = "sweeps", namespace: str = "ops"
    ) -> Documents:
        """What would be installed."""
        text = self("template", release, str(CHART), "--namespace", namespace, *arguments, values=values).stdout
        return [document for document in yaml.safe_load_all(text) if document]

    def refusal(self, *arguments: str, values: dict[str, Any] | None = None) -> str:
        """Why it will not be installed."""
        done = self("template", "sweeps", str(CHART), *arguments, values=values, check=False)
        assert done.returncode, "helm took what it should have refused"
        return done.stderr


def only(documents: Documents, kind: str, name: str | None = None) -> dict[str, Any]:
    """The one document of that kind."""
    found = [d for d in documents if d["kind"] == kind and name in (None, d["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} documents of kind {kind}"
    return found[0]


def older_chart(folder: Path) -> Path:
    """The chart as an earlier version might have been.

    Without a field of the sweep's spec and one of the run's status, with a column of its own.
    """
    older = Path(shutil.copytree(CHART, folder / "older"))
    head = yaml.safe_load((older / "Chart.yaml").read_text())
    (older / "Chart.yaml").write_text(yaml.safe_dump(head | {"version": "0.0.9"}))
    path = older / "files" / "crds" / "scalingsweeps.yaml"
    crd = yaml.safe_load(path.read_text())
    version = crd["spec"]["versions"][0]
    del version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["retryToken"]
    version["additionalPrinterColumns"] = [{"name": "Old", "type": "string", "jsonPath": ".status.phase"}]
    version["additionalPrinterColumns"][0]["description"] = "printer column that was"
    path.write_text(yaml.safe_dump(crd))
    path = older / "files" / "crds" / "scalingruns.yaml"
    crd = yaml.safe_load(path.read_text())
    status = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    del status["properties"]["earlierOutcomes"]
    path.write_text(yaml.safe_dump(crd))
    return older


@functools.cache
def neighbours() -> dict[tuple[str, str], dict[str, Any]]:
    """Schemas of the kinds that are not Kubernetes' own, by apiVersion and kind; none where they are not at hand."""
    schemas = {}
    for path in sorted((SHARED / "crds").glob("*_*.yaml")):
        crd = yaml.safe_load(path.read_text())
        for version in crd["spec"]["versions"]:
            api = f"{crd['spec']['group']}/{version['name']}"
            schemas[api, crd["spec"]["names"]["kind"]] = version["schema"]["openAPIV3Schema"]
    return schemas


def invalid(documents: Documents, version: str) -> list[str]:
    """What Kubernetes of that version, or a neighbour's schema, would not take: unknown fields too."""
    problems = []
    for document in documents:
        name = f"{document['kind']}/{document['metadata']['name']}"
        schema = neighbours().get((document["apiVersion"], document["kind"]))
        if schema:
            problems += [
                f"{name}: {e.message}" for e in jsonschema.Draft202012Validator(closed(schema)).iter_errors(document)
            ]
            continue
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
            problems.append(f"{name}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError:
            if document["apiVersion"].split("/")[0].endswith(OTHERS):
                continue  # a neighbour whose schema is not at hand
            problems.append(f"{name}: no such kind in Kubernetes {version}")
    return problems


OTHERS = ("monitoring.coreos.com", "kueue.x-k8s.io")


def closed(schema: Any) -> Any:
    """A CRD's schema, read strictly: unknown fields are refused where it does not say otherwise."""
    if isinstance(schema, list):
        return [closed(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        kept.pop("type", None)
        kept["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if (
        isinstance(schema.get("properties"), dict)
        and schema.get("type") == "object"
        and not schema.get("x-kubernetes-preserve-unknown-fields")
        and "metadata" not in schema["properties"]
    ):
        kept.setdefault("additionalProperties", False)
    return kept

"""What the API server stores and the operator refuses is said on the sweep: Accepted=False, a reason, a remedy."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from control_plane import ControlPlane
from local_ladder import MANIFEST
from manifest_table import FINE, JUDGED

from sweep_operator.clusters.kubernetes.cache import Caches
from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.cluster import KubernetesCluster
from sweep_operator.clusters.kubernetes.resources import SWEEPS
from sweep_operator.controller.passes import Passes
from sweep_operator.controller.queue import Key
from sweep_operator.policy import Policy

CRDS = Path(__file__).parents[2] / "crds"


class Place:
    """A sweep named tiny in a namespace, and the operator's passes over it."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane, self.namespace = plane, namespace
        self.api = Api.connect(plane.kubeconfig())
        self.caches = Caches.empty()
        cluster = KubernetesCluster(self.api, self.caches, self)
        self.passes = Passes(cluster, Policy(), lambda subject, event: None, lambda: datetime.now(UTC))

    def emit(self, sweep: object, event: object) -> None:
        """Events are of no interest here."""

    def apply(self, manifest: str) -> None:
        self.plane.kubectl("apply", "-n", self.namespace, "-f", "-", stdin=manifest)
        self.caches.sweeps.put(self.api.get(SWEEPS.path(self.namespace, "tiny")))

    def settle(self) -> int:
        """Pass until nothing changes; returns how many writes that took."""
        before = self.writes()
        while self.passes(Key("ScalingSweep", self.namespace, "tiny")).changed:
            pass
        return self.writes() - before

    def writes(self) -> int:
        return sum(count for (verb, _, _), count in self.api.calls.items() if verb not in ("get", "list", "watch"))

    def said(self, path: str) -> str:
        return self.plane.kubectl("get", "sweep", "tiny", "-n", self.namespace, "-o", f"jsonpath={path}").stdout

    def accepted(self) -> str:
        condition = '{.status.conditions[?(@.type=="Accepted")]'
        return f"{self.said(condition + '.status}')}: {self.said(condition + '.reason}')}: " + self.said(
            condition + ".message}"
        )


@pytest.fixture
def place(control_plane: ControlPlane, namespace: str) -> Place:
    control_plane.install(CRDS)
    return Place(control_plane, namespace)


@pytest.mark.parametrize("name", JUDGED)
def test_the_sentence_of_lint_stands_on_the_sweep_once(name: str, place: Place) -> None:
    manifest, sentence = JUDGED[name]
    place.apply(manifest)
    assert place.settle() == 1
    assert place.accepted().startswith("False: ")
    assert sentence in place.accepted()
    assert place.said("{.status.phase}") == "Refused"
    assert place.settle() == 0, "at rest nothing is written"


def test_a_mended_spec_is_accepted(place: Place) -> None:
    place.apply(JUDGED["a recipe that contradicts itself"][0])
    place.settle()
    assert place.accepted().startswith("False: InvalidSpec: ")
    place.apply(MANIFEST)
    place.settle()
    assert place.accepted() == "True: Valid: "
    assert place.said("{.status.rungs[*].name}") == "a b c d"


def test_a_device_that_is_large_enough_mends_a_sweep_that_did_not_fit(place: Place) -> None:
    manifest, _ = JUDGED["a run that its devices cannot hold"]
    place.apply(manifest)
    place.settle()
    assert place.accepted().startswith("False: DoesNotFit: ")
    place.apply(manifest.replace("gpuMemory: 1M", "gpuMemory: 80Gi"))
    place.settle()
    assert place.accepted() == "True: Valid: "
    runs = place.plane.kubectl("get", "srun", "-n", place.namespace, "-o", "jsonpath={.items[*].spec.placement}")
    assert runs.stdout.count('"gpuMemory":"80Gi"') == 2


def test_a_run_of_another_context_is_stored_with_it_and_the_forecast_is_not_about_it(place: Place) -> None:
    place.apply(FINE["runs of another context length"])
    place.settle()
    assert place.said("{.status.rungs[0].runs[*].purpose}") == "Ladder Ladder Context Context"
    assert place.said("{.status.rungs[0].runs[*].sequenceLength}") == "64 64"
    found = "jsonpath={.items[*].spec.run.sequenceLength}"
    assert place.plane.kubectl("get", "srun", "-n", place.namespace, "-o", found).stdout == "64 64"

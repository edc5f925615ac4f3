"""The operator at work, for tests of a sweep's life: one process a module, a namespace and its trainers a test."""

import pytest
from live_operator import OperatorProcess, Place, install_resources, manifest
from standin_trainers import StandinTrainers

from sweep_operator.clusters.kubernetes.client import Api


@pytest.fixture(scope="module")
def operator(control_plane, simulated_nodes, tmp_path_factory):
    """One operator for all namespaces, and the resources it works on."""
    install_resources(control_plane)
    process = OperatorProcess(control_plane, tmp_path_factory.mktemp("operator")).start()
    yield process
    print(process.log.read_text()[-6000:])  # shown where a test fails
    assert process.stop() == 0


@pytest.fixture
def place(control_plane, operator, namespace):
    """The namespace of the test."""
    return Place(control_plane, namespace)


@pytest.fixture
def trainers(control_plane, namespace):
    """Who plays the trainers in it: each succeeds at once, where the test says nothing else."""
    api = Api.connect(control_plane.kubeconfig())
    playing = StandinTrainers(api, namespace).start()
    yield playing
    playing.stop()
    api.close()


@pytest.fixture
def climb(place, trainers):
    """A sweep, applied."""

    def applied(**spec):
        place.apply(manifest(**spec))
        return place

    return applied

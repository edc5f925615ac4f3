"""Fixtures of the chart's tests: the real helm, without a cluster or with one."""

from collections.abc import Iterator

import pytest
from control_plane import ControlPlane, UnavailableError, build
from helm_chart import Helm


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm without a cluster."""
    try:
        return Helm(build.program("helm"), tmp_path_factory.mktemp("helm"))
    except UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of the module's own: releases own cluster-wide objects, other tests make the same by hand.

    With nodes on which pods are said to be ready, so that helm's --wait has something to wait for.
    """
    try:
        plane = ControlPlane(tmp_path_factory.mktemp("plane")).start()
        plane.run_workloads()
    except UnavailableError as reason:
        pytest.skip(str(reason))
    plane.add_nodes(2)
    yield plane
    plane.stop()


@pytest.fixture(scope="module")
def live_helm(helm: Helm, plane: ControlPlane) -> Helm:
    """helm as the cluster's administrator."""
    return helm.on(plane.kubeconfig())

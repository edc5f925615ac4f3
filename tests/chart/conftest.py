"""Fixtures of the chart's tests: the real helm, without a cluster or with one."""

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


@pytest.fixture
def live_helm(helm: Helm, control_plane: ControlPlane) -> Helm:
    """helm as the cluster's administrator."""
    return helm.on(control_plane.kubeconfig())

"""Fixtures of the real control plane, for every test that names one. Without them a test needs no cluster."""

import re
import sys
import uuid
from collections.abc import Iterator

import pytest
from control_plane import ControlPlane, UnavailableError, build

NEEDS = {
    "control_plane": ("etcd", "kube-apiserver", "kubectl"),
    "simulated_nodes": ("kube-controller-manager", "kube-scheduler", "kwok"),
    "helm": ("helm",),
}
"""Fixture of the control plane: the programs behind it."""
BESIDE = {"s3_server": ("versitygw",)}
"""The same of what needs no control plane."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that uses the control plane, however indirectly, is marked so. What runs one by one for longest begins."""
    for item in items:
        if NEEDS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker("cluster")
    items.sort(key=lambda item: not any(mark.args == ("ray",) for mark in item.iter_markers("xdist_group")))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test, where no test's timeout counts and the progress can be seen."""
    if session.config.option.collectonly:
        return
    fixtures = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    needs = NEEDS | BESIDE
    waiting = build.missing(p for fixture, names in needs.items() if fixture in fixtures for p in names)
    if not waiting or not build.can_build():
        return  # each test that is skipped says why
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        minutes = sum(program.minutes for program in waiting)
        print(f"\nbuilding what the tests run on, once: about {minutes:.0f} min on two cores", file=sys.stderr)
        for program in waiting:
            try:
                build.program(program.name)
            except UnavailableError:
                return


def _programs(fixture: str) -> None:
    """Skip the test, with the reason, where a program is not to be had."""
    try:
        for name in NEEDS[fixture]:
            build.program(name)
    except UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd and a real API server with RBAC, one for the session (and for each parallel worker)."""
    _programs("control_plane")
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane")).start()
    yield plane
    plane.stop()


@pytest.fixture(scope="session")
def simulated_nodes(control_plane: ControlPlane) -> list[str]:
    """The session's plane with controllers, a scheduler and eight simulated nodes of eight GPUs; their names."""
    _programs("simulated_nodes")
    control_plane.run_workloads()
    return control_plane.add_nodes(8)


@pytest.fixture
def namespace(control_plane: ControlPlane, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own. It is not deleted: the whole plane goes at the end."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:48].strip("-")
    name = f"{name}-{uuid.uuid4().hex[:6]}"
    control_plane.kubectl("create", "namespace", name)
    return name

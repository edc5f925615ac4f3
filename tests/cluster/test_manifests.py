"""Every wrong manifest is answered by the real API server, through real kubectl, and by lint; where both can, alike."""

from collections.abc import Callable
from pathlib import Path

import pytest
from control_plane import ControlPlane
from manifest_table import APART, FINE, JUDGED, SAME

from sweep_operator.cli import main
from sweep_operator.cli.errors import Exit

CRDS = Path(__file__).parents[2] / "crds"
Answer = Callable[[str], str]
"""From a manifest to what is said of it; empty when it is taken."""


@pytest.fixture(scope="session")
def kubectl(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """What `kubectl apply` answers, the API server having checked everything but stored nothing."""
    control_plane.install(CRDS)
    path = tmp_path_factory.mktemp("manifests") / "sweep.yaml"

    def apply(manifest: str) -> str:
        path.write_text(manifest)
        done = control_plane.kubectl("apply", "--dry-run=server", "-f", str(path), check=False)
        return done.stderr if done.returncode else ""

    return apply


@pytest.fixture
def lint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Answer:
    def check(manifest: str) -> str:
        path = tmp_path / "sweep.yaml"
        path.write_text(manifest)
        status = main(["lint", str(path)])
        said = capsys.readouterr().err
        assert (status == Exit.BAD_INPUT) == bool(said)
        return said

    return check


@pytest.mark.parametrize("name", FINE)
def test_a_right_manifest_is_taken_by_both(name: str, kubectl: Answer, lint: Answer) -> None:
    assert kubectl(FINE[name]) == ""
    assert lint(FINE[name]) == ""


@pytest.mark.parametrize("name", SAME)
def test_a_wrong_manifest_is_refused_by_both_with_the_same_sentence(name: str, kubectl: Answer, lint: Answer) -> None:
    manifest, where, sentence = SAME[name]
    for said in (kubectl(manifest), lint(manifest)):
        assert sentence in said
        assert where in said


@pytest.mark.parametrize("name", APART)
def test_a_wrong_manifest_is_refused_by_both_each_in_its_words(name: str, kubectl: Answer, lint: Answer) -> None:
    manifest, servers, lints = APART[name]
    assert servers in kubectl(manifest)
    assert lints in lint(manifest)


@pytest.mark.parametrize("name", JUDGED)
def test_what_only_the_operator_can_judge_is_stored_and_refused_by_lint(
    name: str, kubectl: Answer, lint: Answer
) -> None:
    manifest, sentence = JUDGED[name]
    assert kubectl(manifest) == ""
    assert sentence in lint(manifest)

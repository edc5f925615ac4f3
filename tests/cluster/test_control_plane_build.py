"""Where the control plane's programs come from: given, kept, built, or a said reason why there are none."""

from pathlib import Path

import pytest
from control_plane import UnavailableError, build


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache; returns the folder that programs would be kept in."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return build.folder()


def put(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)
    return folder / name


def test_a_program_that_is_given_is_used_before_one_that_is_kept(
    nothing_kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, given = put(nothing_kept, "etcd"), put(tmp_path / "assets", "etcd")
    assert build.program("etcd") == kept
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(given.parent))
    assert build.program("etcd") == given


def test_the_folder_of_kept_programs_names_every_pinned_version(nothing_kept: Path) -> None:
    for module, dependency in (("kubernetes", "k8s.io/kubernetes"), ("kwok", "sigs.k8s.io/kwok")):
        assert build.pinned(module, dependency) in nothing_kept.parent.name


def test_a_new_version_of_the_s3_server_is_built_and_nothing_else(
    nothing_kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in build.PROGRAMS.values():
        put(nothing_kept, program.file)
    assert not build.missing(build.PROGRAMS)
    pinned = build.pinned
    monkeypatch.setattr(build, "pinned", lambda module, of: "99.0.0" if module == "versitygw" else pinned(module, of))
    assert [program.name for program in build.missing(build.PROGRAMS)] == ["versitygw"]


def test_without_go_the_reason_says_what_would_help(nothing_kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match=r"no Go to build it with; install Go .* or name a folder"):
        build.program("kubectl")
    with pytest.raises(UnavailableError, match=r"versitygw is not built and .* install Go [^,]*$"):
        build.program("versitygw")


def test_a_build_that_fails_is_a_reason_with_the_compilers_words(
    nothing_kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = put(tmp_path / "bin", "go")
    go.write_text("#!/bin/sh\necho cannot find module >&2\nexit 1\n")
    monkeypatch.setenv("PATH", str(go.parent))
    with pytest.raises(UnavailableError, match="kubectl could not be built: cannot find module"):
        build.program("kubectl")
    assert build.missing(["kubectl"]) == [build.PROGRAMS["kubectl"]], "nothing half built is kept"

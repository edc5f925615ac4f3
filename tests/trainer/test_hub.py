"""Datasets on the Hugging Face hub, through the hub's own client; the hub is a stand-in on loopback."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

from sweep_analysis.recipe import Training
from sweep_analysis.record import ExitStatus
from sweep_trainer.corpus import BadDataError
from sweep_trainer.data.hub import downloaded

pytest.importorskip("huggingface_hub", reason="the extra `trainer` is not installed")
TEXTS = [f"document {i} says " + " ".join(f"w{(i * j) % 97}" for j in range(60)) for i in range(400)]
DATASET = "people/words"


def parquet(texts: list[str]) -> bytes:
    import pyarrow
    from pyarrow import parquet as files

    sink = pyarrow.BufferOutputStream()
    files.write_table(pyarrow.table({"text": texts}), sink)
    return bytes(sink.getvalue())


class Hub:
    """The three requests of the hub's interface that a download makes, for one dataset of two revisions."""

    def __init__(self) -> None:
        halves = {f"data/train-{i}.parquet": parquet(TEXTS[i * 200 : (i + 1) * 200]) for i in range(2)}
        readme = {"README.md": b"words\n"}
        self.revisions = {"main": halves | readme, "v1": {"data/train-0.parquet": halves["data/train-0.parquet"]}}
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET  # noqa: N815  # the name that http.server calls

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0]
        self.asked.append(f"{request.command} {path}")
        tree, resolve = f"/api/datasets/{DATASET}/tree/", f"/datasets/{DATASET}/resolve/"
        if path.startswith((tree, resolve)):
            revision, _, name = path.removeprefix(tree).removeprefix(resolve).partition("/")
            files = self.revisions.get(revision)
            if files is None:
                self.send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            elif path.startswith(tree):
                entries = [{"type": "file", "path": n, "size": len(c), "oid": digest(c)} for n, c in files.items()]
                self.send(request, 200, json.dumps(entries).encode(), {"Content-Type": "application/json"})
            else:
                headers = {"ETag": f'"{digest(files[name])}"', "X-Repo-Commit": digest(revision.encode())}
                self.send(request, 200, files[name], headers)
        else:
            self.send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})

    @staticmethod
    def send(request: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)


def digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.server.shutdown()


def prepare(hub: str, tmp_path: Path, *files: str) -> "subprocess.CompletedProcess[str]":
    recipe = {
        "data": {"sources": [{"name": "web", "files": list(files)}], "validationTokens": 1024, "validationShare": 0.2},
        "sequenceLength": 16,
        "batchTokens": 128,
    }
    (tmp_path / "training.json").write_text(json.dumps(recipe))
    command = ["-m", "sweep_trainer", "prepare", str(tmp_path / "training.json"), "--cache", str(tmp_path / "cache")]
    environment = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=os.environ | environment, check=False
    )


def test_a_dataset_of_the_hub_gives_the_tokens_that_its_files_give(hub: Hub, tmp_path: Path) -> None:
    local = []
    for name, content in hub.revisions["main"].items():
        if name.endswith(".parquet"):
            path = tmp_path / Path(name).name
            path.write_bytes(content)
            local.append(str(path))
    there = prepare(hub.address, tmp_path, f"hf://datasets/{DATASET}/data/*.parquet")
    assert there.returncode == ExitStatus.DONE, there.stderr
    (tmp_path / "here").mkdir()
    here = prepare(hub.address, tmp_path / "here", *local)
    told, like = json.loads(there.stdout), json.loads(here.stdout)
    assert told["dataDigest"] == like["dataDigest"]
    assert told["validationDigest"] == like["validationDigest"]
    assert told["trainTokens"] > 70_000
    hub.asked.clear()
    again = prepare(hub.address, tmp_path, f"hf://datasets/{DATASET}/data/*.parquet")
    assert json.loads(again.stdout) == told
    assert not [asked for asked in hub.asked if asked.startswith("GET /datasets/")]  # nothing is downloaded twice


def test_a_revision_is_asked_for_by_its_name(hub: Hub, tmp_path: Path) -> None:
    done = prepare(hub.address, tmp_path, f"hf://datasets/{DATASET}@v1/data/*.parquet")
    assert done.returncode == ExitStatus.DONE, done.stderr
    assert json.loads(done.stdout)["trainTokens"] < 60_000


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        (f"{DATASET}/data/*.jsonl", "no file matches; the dataset has README.md, data/train-0.parquet"),
        (f"{DATASET}@v9/data/*.parquet", "the hub has no such revision, or HF_TOKEN does not open it"),
        ("people/gone/a.parquet", "the hub has no such dataset, or HF_TOKEN does not open it"),
    ],
)
def test_what_the_hub_has_not_is_refused_in_one_sentence(hub: Hub, tmp_path: Path, address: str, sentence: str) -> None:
    done = prepare(hub.address, tmp_path, f"hf://datasets/{address}")
    assert done.returncode == ExitStatus.BAD_CONFIGURATION
    assert f"sweep_trainer prepare: hf://datasets/{address}" in done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hub_that_does_not_answer_is_named(tmp_path: Path) -> None:
    done = prepare("http://127.0.0.1:9", tmp_path, f"hf://datasets/{DATASET}/data/*.parquet")
    assert done.returncode == ExitStatus.BAD_CONFIGURATION
    assert "cannot be downloaded" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_no_datasets_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match="write hf://datasets/OWNER/NAME/PATH"):
        downloaded("hf://datasets/people", tmp_path)
    for elsewhere in ("hf://people/model/a.parquet", "s3://bucket/a.parquet"):
        with pytest.raises(ValidationError, match="is an address; data is read from files"):
            Training.model_validate({"data": {"sources": [{"name": "web", "files": [elsewhere]}]}})


def test_an_address_stays_itself_whatever_the_manifests_folder() -> None:
    address = f"hf://datasets/{DATASET}/data/*.parquet"
    training = Training.model_validate({"data": {"sources": [{"name": "web", "files": [address, "a.jsonl"]}]}})
    assert training.rooted(Path("/there")).data.sources[0].files == (address, "/there/a.jsonl")

"""A container image made here, without a registry and without a builder: folders, and the mount points of what is lent.

The interpreter and the installed packages are lent to the pods by the machine (hostPath mounts, read-only), so the
image holds next to nothing. Owns the archive's format: an OCI image in a docker-archive, as `ctr images import` reads.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path

FOLDERS = ("tmp", "etc", "proc", "sys", "dev", "usr", "lib", "lib64", "bin", "var", "run", "opt")
_PASSWD = b"root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"


def archive(
    file: Path,
    name: str,
    files: dict[str, bytes] | None = None,
    entrypoint: tuple[str, ...] = (),
    path: str = "/usr/bin:/bin",
) -> Path:
    """Write the archive of an image of that name; `files` by path within it, executable; `path` is its $PATH."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in FOLDERS:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        for where, content in {"etc/passwd": _PASSWD, **(files or {})}.items():
            _add(tar, where, content, 0o755)
    body = layer.getvalue()
    digest = hashlib.sha256(body).hexdigest()
    configuration = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "User": "65534", "Env": [f"PATH={path}"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    named = hashlib.sha256(configuration).hexdigest() + ".json"
    manifest = [{"Config": named, "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]}]
    with tarfile.open(file, "w") as tar:
        _add(tar, named, configuration, 0o644)
        _add(tar, f"{digest}/layer.tar", body, 0o644)
        _add(tar, "manifest.json", json.dumps(manifest).encode(), 0o644)
    return file


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))

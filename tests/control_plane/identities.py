"""Who may speak to the control plane: a token for each user under test, keys for service accounts, kubeconfig files."""

import base64
import json
import os
import threading
from pathlib import Path

USERS = {
    "admin": ("system:masters",),
    "operator": (),
    "editor": (),
    "viewer": (),
    "approver": (),
    "stranger": (),
}
"""User: groups. Only `admin` may do anything from the start; tests bind roles to the others."""


def token(user: str) -> str:
    """The bearer token of a user."""
    return f"{user}-token"


def write_tokens(path: Path) -> None:
    """The API server's static token file."""
    lines = (f'{token(user)},{user},{user}-uid,"{",".join(groups)}"' for user, groups in USERS.items())
    path.write_text("\n".join(lines) + "\n")


def write_signing_key(path: Path) -> None:
    """A P-256 key in SEC 1 form (RFC 5915), with which service accounts' tokens are signed."""
    scalar = b"\x00" + os.urandom(31)  # below the curve's order
    curve = bytes.fromhex("a00a06082a8648ce3d030107")
    body = b"\x02\x01\x01" + b"\x04\x20" + scalar + curve
    encoded = base64.encodebytes(b"\x30" + bytes([len(body)]) + body).decode()
    path.write_text(f"-----BEGIN EC PRIVATE KEY-----\n{encoded}-----END EC PRIVATE KEY-----\n")
    path.chmod(0o600)


def write_kubeconfig(path: Path, server: str, authority: Path, user: str, bearer: str, namespace: str) -> None:
    """A kubeconfig with one context, named after the user. (JSON is YAML.)"""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": user,
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": str(authority)}}],
        "users": [{"name": user, "user": {"token": bearer}}],
        "contexts": [{"name": user, "context": {"cluster": "test", "user": user, "namespace": namespace}}],
    }
    text = json.dumps(document, indent=2)
    if path.exists() and path.read_text() == text:
        return
    written = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    written.write_text(text)
    written.chmod(0o600)
    written.replace(path)  # at once: somebody may be reading it

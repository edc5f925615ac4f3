"""A real S3 server on loopback: signatures are checked, users have rights, and objects are files on a disk.

Owns one process of versitygw, the folder that it serves, and its users. Killed and started again it has what it had.
"""

import json
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from control_plane import free_port
from control_plane.programs import Running

_OWNER, _REGION = "owner", "us-east-1"
_READY_SECONDS = 60.0


class S3Server:
    """With one bucket, and one user who may do everything."""

    bucket = "bucket"

    def __init__(self, program: Path, folder: Path) -> None:
        """`folder` is on a disk with extended attributes; the server keeps objects and users there."""
        self.uri = f"s3://{self.bucket}"
        self.disk = folder / "objects" / self.bucket
        """An object is the file of its name below."""
        self._program, self._folder = program, folder
        self._address = f"127.0.0.1:{free_port()}"
        self._statements: list[dict[str, Any]] = []
        for name in ("objects", "users"):
            (folder / name).mkdir()

    def start(self) -> None:
        """Returns once it answers; a second start finds what the first one left."""
        users = [f"--iam-dir={self._folder / 'users'}", "--iam-cache-disable"]
        self._server = Running(
            self._program,
            [f"--port={self._address}", *users, "--health=/health", "posix", str(self._folder / "objects")],
            self._folder / "log",
            {"ROOT_ACCESS_KEY": _OWNER, "ROOT_SECRET_KEY": _secret_of(_OWNER)},
        )
        deadline = time.monotonic() + _READY_SECONDS
        while not self._answers():
            assert self._server.alive, self._server.tail()
            assert time.monotonic() < deadline, self._server.tail()
            time.sleep(0.05)
        if not self.disk.exists():
            self._client().call_s3("create_bucket", Bucket=self.bucket)

    def kill(self) -> None:
        """As a lost machine would end: with no time to finish anything."""
        self._server.kill()

    def environment(self, user: str = _OWNER) -> dict[str, str]:
        """The variables by which every S3 client finds the server and is that user."""
        return {
            "AWS_ENDPOINT_URL": f"http://{self._address}",
            "AWS_ACCESS_KEY_ID": user,
            "AWS_SECRET_ACCESS_KEY": _secret_of(user),
            "AWS_DEFAULT_REGION": _REGION,
        }

    def add_user(self, name: str, *actions: str) -> None:
        """A user who may do that in the bucket, such as `s3:GetObject`, and nothing else."""
        admin = {"ACCESS_KEY": _OWNER, "SECRET_KEY": _secret_of(_OWNER), "ENDPOINT_URL": f"http://{self._address}"}
        subprocess.run(
            [self._program, "admin", "create-user", "--access", name, "--secret", _secret_of(name), "--role", "user"],
            env={f"ADMIN_{key}": value for key, value in admin.items()},
            check=True,
        )
        resource = f"arn:aws:s3:::{self.bucket}"
        self._statements.append(
            {
                "Effect": "Allow",
                "Principal": {"AWS": [name]},
                "Action": actions,
                "Resource": [resource, f"{resource}/*"],
            }
        )
        policy = json.dumps({"Version": "2012-10-17", "Statement": self._statements})
        self._client().call_s3("put_bucket_policy", Bucket=self.bucket, Policy=policy)

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://{self._address}/health", timeout=5):
            return True
        return False

    def _client(self) -> Any:
        import s3fs

        given = self.environment()
        return s3fs.S3FileSystem(
            key=given["AWS_ACCESS_KEY_ID"],
            secret=given["AWS_SECRET_ACCESS_KEY"],
            endpoint_url=given["AWS_ENDPOINT_URL"],
            client_kwargs={"region_name": _REGION},
            skip_instance_cache=True,
        )


def _secret_of(user: str) -> str:
    return f"secret-of-{user}"

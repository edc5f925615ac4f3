"""A command in a mount namespace of its own whose file systems are all read-only, but for `/tmp` and one volume.

What an image promises (`readOnlyRootFilesystem` with an emptyDir at /tmp), without an image: the programs are this
environment's.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

VOLUME = "/srv"
"""Where the volume stands inside: storage, report and cache."""
SOURCES = Path(__file__).parents[1]
"""The project with its environment, which may lie below /tmp itself and is there inside, too."""
_SEALED = """
set -e
mount --make-rprivate /
case "$SANDBOX_SOURCES" in /tmp/*)
  kept="$SANDBOX_TMP/${SANDBOX_SOURCES#/tmp/}"
  mkdir -p "$kept"
  mount --bind "$SANDBOX_SOURCES" "$kept" ;;
esac
awk '{print $5}' /proc/self/mountinfo | while read -r at; do
  case "$at" in /proc*|/dev*|/sys*) ;; *) mount -o remount,bind,ro "$at" ;; esac
done
mount --bind "$SANDBOX_VOLUME" /srv
mount --rbind "$SANDBOX_TMP" /tmp
mount -o remount,bind,rw /srv
mount -o remount,bind,rw /tmp
cd /tmp
exec "$@"
"""


class ForbiddenError(Exception):
    """Why the kernel does not let this user have such a namespace."""


class ReadOnlyRoot:
    """Runs commands so; `tmp` and `volume` are folders of the test's."""

    def __init__(self, folder: Path) -> None:
        """Raises ForbiddenError."""
        self.tmp, self.volume = folder / "tmp", folder / "volume"
        for place in (self.tmp, self.volume):
            place.mkdir()
        if not shutil.which("unshare"):
            raise ForbiddenError("unshare is not installed")
        tried = self.run(["true"])
        if tried.returncode:
            raise ForbiddenError(f"no mount namespace here: {tried.stderr.strip()[:200]}")

    def command(self, command: Sequence[str]) -> list[str]:
        """What starts it."""
        rights = [] if os.geteuid() == 0 else ["--map-root-user"]
        return ["unshare", *rights, "--mount", "sh", "-c", _SEALED, "sh", *command]

    def environment(self, **more: str) -> dict[str, str]:
        """As the images set it, and where the folders are."""
        image = {
            "HOME": "/tmp",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        folders = {
            "SANDBOX_TMP": str(self.tmp),
            "SANDBOX_VOLUME": str(self.volume),
            "SANDBOX_SOURCES": str(SOURCES),
        }
        path = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
        return image | folders | path | {"OMP_NUM_THREADS": "1"} | more

    def run(
        self, command: Sequence[str], more: Mapping[str, str] | None = None, seconds: float = 240
    ) -> "subprocess.CompletedProcess[str]":
        """Carry it out."""
        return subprocess.run(
            self.command(command),
            env=self.environment(**more or {}),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

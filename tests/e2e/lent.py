"""What this machine lends to its pods, read-only: the interpreter, the installed packages, the system's libraries."""

import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


def folders() -> dict[str, Path]:
    """By a name for the volume; each is seen in a pod where it is seen here."""
    found = {
        "system": Path("/usr"),
        "loader": Path("/lib64"),
        "libraries": Path("/lib"),
        "interpreter": Path(sys.base_prefix),
        "packages": Path(sys.prefix),
        "operator": REPOSITORY / "operator",
        "trainer": REPOSITORY / "trainer",
        "analysis": REPOSITORY / "analysis",
    }
    return {name: path for name, path in found.items() if name != "interpreter" or not path.is_relative_to("/usr")}


def claimed_volumes() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and mounts for a pod of the platform's own, as the chart's values take them, by its namespace's `claims`.

    Claims and not host paths: `restricted` Pod Security refuses the latter in a pod.
    """
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name, "readOnly": True}} for name in folders()]
    mounts = [{"name": name, "mountPath": str(path), "readOnly": True} for name, path in folders().items()]
    return volumes, mounts


def claims(namespace: str) -> list[dict[str, Any]]:
    """Volumes that an administrator offers to a namespace, and the claims by which a sweep names them."""
    documents: list[dict[str, Any]] = []
    for name, path in folders().items():
        claim = {"namespace": namespace, "name": name}
        size = {"storage": "1Gi"}
        documents.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": f"{namespace}-{name}"},
                "spec": {
                    "capacity": size,
                    "accessModes": ["ReadOnlyMany"],
                    "storageClassName": "lent",
                    "hostPath": {"path": str(path.resolve())},
                    "claimRef": claim,
                },
            }
        )
        documents.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": claim,
                "spec": {
                    "accessModes": ["ReadOnlyMany"],
                    "storageClassName": "lent",
                    "resources": {"requests": size},
                    "volumeName": f"{namespace}-{name}",
                },
            }
        )
    return documents


def run_volumes() -> list[dict[str, Any]]:
    """`spec.runtime.volumes` of a sweep whose trainers are lent this machine's."""
    return [
        {"name": name, "mountPath": str(path), "readOnly": True, "claimName": name} for name, path in folders().items()
    ]

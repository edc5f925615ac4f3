"""The bill of materials of each image, as CycloneDX 1.6, from the lock that the image is built from.

Owns the form. The lock pins every Python package with its version and says which other one wants it; the base image's
own packages are the base's to list. Deterministic: the same lock gives the same bill.
"""

import json
import re
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMESPACE = uuid.UUID("6e5d9a10-93fb-5e55-9c7a-5ca1ab1e5eed")
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s;]+)(?:\s*;\s*(.*))?$")
SELF = "scalingsweep"


@dataclass
class Pin:
    """One package of a lock."""

    name: str
    version: str
    marker: str
    wanted_by: set[str] = field(default_factory=set)

    @property
    def reference(self) -> str:
        """Its package URL."""
        return f"pkg:pypi/{self.name}@{self.version}"


def pins(lock: Path) -> list[Pin]:
    """The packages of a lock, with who wants each ("# via" lines)."""
    found: list[Pin] = []
    for line in lock.read_text().splitlines():
        match = PIN.match(line)
        if match:
            found.append(Pin(match[1], match[2], match[3] or ""))
        elif line.startswith("    #") and found:
            for name in line.removeprefix("    #").removeprefix(" via").split():
                found[-1].wanted_by.add(name)
    return found


def bill(lock: Path, version: str) -> str:
    """The document."""
    packages = pins(lock)
    root = f"pkg:pypi/{SELF}@{version}"
    depends: dict[str, list[str]] = {reference: [] for reference in (root, *(p.reference for p in packages))}
    by_name: dict[str, list[Pin]] = {}
    for package in packages:
        by_name.setdefault(package.name, []).append(package)
    for package in packages:
        for name in sorted(package.wanted_by):
            for parent in by_name.get(name, ()):
                depends[parent.reference].append(package.reference)
            if name == SELF:
                depends[root].append(package.reference)
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(NAMESPACE, lock.read_text()).urn,
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": root, "name": SELF, "version": version, "purl": root},
            "properties": [{"name": "lock", "value": f"requirements/{lock.name}"}],
        },
        "components": [_component(package) for package in packages],
        "dependencies": [{"ref": ref, "dependsOn": sorted(set(below))} for ref, below in depends.items()],
    }
    return json.dumps(document, indent=1) + "\n"


def _component(package: Pin) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": package.reference,
        "name": package.name,
        "version": package.version,
        "purl": package.reference,
    }
    if package.marker:
        component["properties"] = [{"name": "marker", "value": package.marker}]
    return component

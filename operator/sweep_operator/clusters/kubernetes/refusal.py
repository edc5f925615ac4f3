"""`Accepted=False` on a sweep whose spec the schema took and the models do not: a recipe that contradicts itself, say.

Owns one patch of a status that cannot be read as a model because its spec cannot. Everything else that is refused is
acceptance's, and is written with the rest of the status.
"""

import json
from datetime import datetime
from typing import Any

from sweep_operator.clusters.kubernetes.cache import Document
from sweep_operator.conditions import timestamp

REASON = "InvalidSpec"


def refusal(known: Document, sentence: str, now: datetime) -> dict[str, Any] | None:
    """The merge patch that says it, or None where it has been said."""
    document = json.loads(known.body)
    conditions = document.get("status", {}).get("conditions", [])
    said: dict[str, Any] = next((c for c in conditions if c["type"] == "Accepted"), {})
    message = sentence[:2048]
    if (said.get("reason"), said.get("message"), said.get("observedGeneration")) == (REASON, message, known.generation):
        return None
    since = said["lastTransitionTime"] if said.get("status") == "False" else timestamp(now)
    refused = {
        "type": "Accepted",
        "status": "False",
        "reason": REASON,
        "message": message,
        "observedGeneration": known.generation,
        "lastTransitionTime": since,
    }
    others = [c for c in conditions if c["type"] != "Accepted"]
    version = {"uid": known.identity.uid, "resourceVersion": document["metadata"]["resourceVersion"]}
    status = {"conditions": [refused, *others], "observedGeneration": known.generation, "phase": "Refused"}
    return {"metadata": version, "status": status}

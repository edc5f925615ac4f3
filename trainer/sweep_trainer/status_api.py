"""One run's status on the API server, as a trainer's account may see it: read it, and apply our two parts of it.

Owns the paths, the field managers and plain HTTPS with the pod's own token; the trainer needs no Kubernetes client for
three requests. Every call either succeeds, raises `Unavailable` (another try may succeed) or `Refused` (none will).
Retries nothing: that is `outbox.py`'s.
"""

import http.client
import json
import os
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from pydantic import ValidationError

from sweep_analysis.record import Progress, RecordSet

API_VERSION = "scalingsweep.dev/v1alpha1"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds the token and the certificate authority of its account."""
TIMEOUT_SECONDS = 10.0
_LARGEST_ANSWER = 4 << 20
_NEVER = frozenset({400, 413, 415, 422})
"""Answers about the document itself; all others (a role not yet propagated, a token rotated) may pass."""


class Unavailable(OSError):  # noqa: N818 - what the API server calls it
    """No answer, or one that says: not now."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the server asked to wait."""


class Refused(Exception):  # noqa: N818 - what the API server calls it
    """The API server will never take this document."""


@dataclass
class StatusApi:
    """The status subresource of one ScalingRun."""

    namespace: str
    run: str
    uid: str
    """Of the run. The API server does not compare it in a write to a status, so it is compared in the answer: of a run
    that was made anew under the same name no second write is tried."""
    host: str
    port: int
    account: Path = ACCOUNT
    timeout: float = TIMEOUT_SECONDS
    _connection: http.client.HTTPSConnection | None = field(default=None, init=False)
    _orphaned: bool = field(default=False, init=False)
    _speaking: threading.Lock = field(default_factory=threading.Lock, init=False)

    @classmethod
    def of_pod(cls, run: str, uid: str) -> "StatusApi":
        """As the pod that this runs in. Raises Unavailable outside of one.

        `SCALINGSWEEP_ACCOUNT` names the account's folder where it is not mounted at the usual place.
        """
        account = Path(os.environ.get("SCALINGSWEEP_ACCOUNT", ACCOUNT))
        try:
            host, port = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])
            namespace = os.environ.get("SCALINGSWEEP_NAMESPACE") or (account / "namespace").read_text().strip()
        except (KeyError, ValueError, OSError) as error:
            raise Unavailable(f"there is no API server to report to, this is no pod ({error})") from None
        return cls(namespace, run, uid, host, port, account)

    def read(self) -> dict[str, Any]:
        """The run's status as it stands."""
        status = self._send("GET", {}, None).get("status")
        return status if isinstance(status, dict) else {}

    def apply_progress(self, progress: Progress) -> None:
        """Say where the run stands."""
        self._apply("trainer-progress", {"progress": progress.to_json()})

    def apply_records(self, records: RecordSet) -> None:
        """Write one attempt's complete set; its own manager, so that neither progress nor another attempt drops it."""
        self._apply(f"trainer-records-{records.attempt}", {"records": [records.to_json()]})

    def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _apply(self, manager: str, status: dict[str, Any]) -> None:
        metadata = {"name": self.run, "namespace": self.namespace}
        document = {"apiVersion": API_VERSION, "kind": "ScalingRun", "metadata": metadata, "status": status}
        if not self._orphaned:
            answer = self._send("PATCH", {"fieldManager": manager, "force": "true"}, document)
            self._orphaned = answer.get("metadata", {}).get("uid", self.uid) != self.uid
        if self._orphaned:
            raise Refused(f"the run {self.run} was deleted and made anew; this attempt was at the one before")

    def _send(self, method: str, query: dict[str, str], document: dict[str, Any] | None) -> dict[str, Any]:
        path = f"/apis/{API_VERSION}/namespaces/{self.namespace}/scalingruns/{self.run}/status"
        body = None if document is None else json.dumps(document).encode()
        try:
            headers = {
                "authorization": f"Bearer {(self.account / 'token').read_text().strip()}",  # it is rotated: read anew
                "accept": "application/json",
                "content-type": "application/apply-patch+yaml",
            }
            with self._speaking:
                status, retry_after, answer = self._exchange(method, f"{path}?{urlencode(query)}", body, headers)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{self.host}:{self.port}: {error or type(error).__name__}") from None
        if status == 200:
            try:
                content = json.loads(answer)
            except ValueError:
                raise Unavailable("the API server's answer is not JSON") from None
            return content if isinstance(content, dict) else {}
        sentence = f"{status}: {_message_of(answer)}"
        if status in _NEVER:
            raise Refused(sentence)
        raise Unavailable(sentence, retry_after)

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, float, bytes]:
        """Status, Retry-After and body of one request; over the kept connection, or a fresh one if that has gone."""
        for kept in (self._connection is not None, False):
            connection = self._connection or self._connected()
            self._connection = connection
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                answer = response.read(_LARGEST_ANSWER)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                # Our requests may be repeated: a server that closed an idle connection has not seen this one.
                if kept and not isinstance(error, TimeoutError):
                    continue
                raise
            if response.will_close or not response.isclosed():
                self.close()
            return response.status, _seconds(response.getheader("retry-after")), answer
        raise AssertionError("the second try either returns or raises")

    def _connected(self) -> http.client.HTTPSConnection:
        trusted = ssl.create_default_context(cafile=str(self.account / "ca.crt"))
        return http.client.HTTPSConnection(self.host, self.port, timeout=self.timeout, context=trusted)


def record_sets(status: dict[str, Any]) -> list[RecordSet]:
    """The record sets in a run's status; one that cannot be read is left out."""
    found = []
    reported = status.get("records")
    for document in reported if isinstance(reported, list) else []:
        try:
            found.append(RecordSet.model_validate(document))
        except ValidationError:
            continue
    return found


def _message_of(answer: bytes) -> str:
    """The sentence in a Status document, or the beginning of whatever came instead."""
    try:
        return str(json.loads(answer)["message"])[:1000]
    except (ValueError, KeyError, TypeError):
        return answer[:200].decode(errors="replace")


def _seconds(header: str | None) -> float:
    try:
        return min(60.0, max(0.0, float(header or 0)))
    except ValueError:  # the other form is a date, which no API server sends
        return 0.0

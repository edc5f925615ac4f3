"""A thin client of the API server: raw JSON over the official package's configuration, credentials and transport.

Owns timeouts, retries, the errors of an answer, the count of calls, and the gate that every write passes. Typed models
are not used: they decode fifteen times slower than plain dicts and refuse objects that lack a field. pydantic's JSON
is read twice and written six times as fast as the standard library's. Knows no resource.
"""

import random
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import urllib3
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import (
    KUBE_CONFIG_DEFAULT_LOCATION,
    list_kube_config_contexts,
    load_incluster_config,
    load_kube_config,
)
from pydantic_core import from_json, to_json

from sweep_operator.clusters.kubernetes.errors import ApiError, NotLeading, TransportError, error_of
from sweep_operator.clusters.kubernetes.resources import resource_of

PATCHES = {
    "merge": "application/merge-patch+json",
    "apply": "application/apply-patch+yaml",
    "json": "application/json-patch+json",
}
_AGAIN = frozenset({429, 500, 502, 503, 504})
"""Answers after which the same request may succeed."""


LONGEST_WRITE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one call may take. A write must end within the margin between giving up a Lease and its expiry."""

    connect_seconds: float = 3.0
    read_seconds: float = 10.0
    write_seconds: float = LONGEST_WRITE_SECONDS
    retry_seconds: float = 8.0
    """No new try of a call is begun after so long; what then fails is the caller's to repeat."""

    @classmethod
    def within(cls, margin_seconds: float) -> Self:
        """For writers under a Lease: a write ends before another may lead."""
        seconds = min(LONGEST_WRITE_SECONDS, margin_seconds)
        return cls(connect_seconds=min(3.0, seconds), write_seconds=seconds)

    @classmethod
    def of_one_try(cls, seconds: float) -> Self:
        """For the Lease itself: quick answers or none, since its keeper tries again anyway."""
        return cls(seconds, seconds, seconds, retry_seconds=0.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back of one request that was carried out."""

    status: int
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The body as JSON; an answer that is none raises TransportError."""
        try:
            document = from_json(self.body)
        except ValueError as error:
            raise TransportError(f"the API server's answer is not JSON: {error}") from None
        return document if isinstance(document, dict) else {}


class Api:
    """One API server, as one account. Safe to use from several threads at once."""

    def __init__(self, configuration: Configuration, patience: Patience | None = None, namespace: str = "default"):
        self.namespace = namespace
        """Of the kubeconfig's context, or of the pod."""
        self.may_write: Callable[[], bool] = _always
        """Asked right before every write; the Lease's gate where there is one."""
        self.patience = patience or Patience()
        self.calls: Counter[tuple[str, str, str]] = Counter()
        """Requests by verb, resource and code (`error` for those without an answer), retries included."""
        self._counting = threading.Lock()
        self._configuration = configuration
        self._transport = RESTClientObject(configuration).pool_manager
        self._host = configuration.host.rstrip("/")

    @classmethod
    def connect(
        cls, kubeconfig: Path | None = None, context: str | None = None, patience: Patience | None = None
    ) -> Self:
        """By the kubeconfig named, or by $KUBECONFIG or ~/.kube/config, or as the pod that this runs in.

        Raises ConnectError, in one sentence, when none of them says where the API server is.
        """
        configuration = Configuration()
        configuration.connection_pool_maxsize = 32
        configuration.keep_alive = True  # a peer that is gone is noticed by the kernel, data or none
        if kubeconfig is not None and not kubeconfig.exists():
            raise ConnectError(f"no API server is known: {kubeconfig} does not exist")
        try:
            namespace = _load(configuration, kubeconfig, context)
        except Exception as error:  # noqa: BLE001 - the loader lets any error of its parsers through
            where = f"{kubeconfig}: " if kubeconfig else ""
            raise ConnectError(f"no API server is known: {where}{str(error) or repr(error)}") from None
        return cls(configuration, patience, namespace)

    def close(self) -> None:
        """Close the kept connections."""
        self._transport.clear()

    def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """One object, or one page of a list. Raises ApiError, or TransportError where no answer came."""
        return self._call("get", "GET", path, None, None, query).document

    def create(self, path: str, document: dict[str, Any], **query: str | int) -> dict[str, Any]:
        """POST the document. Not repeated when its fate is unknown: the caller looks again and asks anew."""
        return self._call("create", "POST", path, document, "application/json", query).document

    def replace(self, path: str, document: dict[str, Any], **query: str | int) -> dict[str, Any]:
        """PUT the document; with a resourceVersion in it, only over that version (ConflictError otherwise)."""
        return self._call("update", "PUT", path, document, "application/json", query).document

    def patch(
        self,
        path: str,
        document: dict[str, Any] | list[dict[str, Any]],
        kind: Literal["merge", "apply", "json"] = "merge",
        field_manager: str | None = None,
        force: bool = False,
    ) -> dict[str, Any]:
        """A merge patch (default), a server-side apply (it needs a field manager), or a JSON patch."""
        query: dict[str, str | int] = {}
        if field_manager is not None:
            query["fieldManager"] = field_manager
        if force:
            query["force"] = "true"
        return self._call("patch", "PATCH", path, document, PATCHES[kind], query).document

    def delete(
        self, path: str, propagation: Literal["Background", "Foreground", "Orphan"] = "Background", uid: str = ""
    ) -> dict[str, Any]:
        """Delete an object; with a UID only that very one (ConflictError otherwise)."""
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        return self._call("delete", "DELETE", path, options, "application/json", {}).document

    def pages(self, path: str, selector: str = "", limit: int = 200) -> Iterator[dict[str, Any]]:
        """A list, page by page; every page is of the same resourceVersion. Raises Gone when it grew too old."""
        query: dict[str, str | int] = {"limit": limit}
        if selector:
            query["labelSelector"] = selector
        page = self.get(path, **query)
        yield page
        while token := page.get("metadata", {}).get("continue"):
            page = self.get(path, **query, **{"continue": token})
            yield page

    @contextmanager
    def stream(self, path: str, read_seconds: float, **query: str | int) -> Iterator[urllib3.BaseHTTPResponse]:
        """A watch's open response; reading raises urllib3's errors, and a silence longer than `read_seconds` does."""
        timeout = urllib3.Timeout(connect=self.patience.connect_seconds, read=read_seconds)
        response = self._send("watch", "GET", path, query, None, {}, timeout, preload=False)
        try:
            if response.status != 200:
                raise error_of(response.status, response.read(amt=65536), response.headers)
            yield response
        finally:
            response.close()

    def _call(
        self, verb: str, method: str, path: str, document: Any, content_type: str | None, query: dict[str, str | int]
    ) -> Answer:
        """One request with its retries. Whatever is not a creation may be repeated when its fate is unknown."""
        body = None if document is None else to_json(document)
        headers = {"content-type": content_type} if content_type else {}
        writes = verb != "get"
        patience = self.patience
        seconds = patience.write_seconds if writes else patience.read_seconds
        timeout = urllib3.Timeout(connect=min(patience.connect_seconds, seconds), total=seconds)
        if writes:
            query = {**query, "timeout": f"{seconds:g}s"}  # the server gives it up, too
        deadline = time.monotonic() + patience.retry_seconds
        pause = 0.1
        while True:
            if writes and not self.may_write():
                raise NotLeading(f"{verb} of {path} was not sent: this process does not hold the Lease")
            failure: ApiError | TransportError
            try:
                response = self._send(verb, method, path, query, body, headers, timeout, preload=True)
                if response.status < 300:
                    return Answer(response.status, response.data)
                failure = error_of(response.status, response.data, response.headers)
                again = failure.status == 429 or (failure.status in _AGAIN and verb != "create")
                pause = max(pause, failure.retry_after or 0.0)
            except TransportError as error:
                failure = error
                again = verb != "create"
            wait = pause * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, no secret
            if not again or time.monotonic() + wait > deadline:
                raise failure
            time.sleep(wait)
            pause = min(2 * pause, 2.0)

    def _send(
        self,
        verb: str,
        method: str,
        path: str,
        query: dict[str, str | int],
        body: bytes | None,
        headers: dict[str, str],
        timeout: urllib3.Timeout,
        preload: bool,
    ) -> urllib3.BaseHTTPResponse:
        url = self._host + path + ("?" + urllib.parse.urlencode(query) if query else "")
        code = "error"
        try:
            response = self._transport.urlopen(
                method,
                url,
                body=body,
                headers={"accept": "application/json", "user-agent": "scalingsweep", **headers, **self._credentials()},
                timeout=timeout,
                retries=False,
                redirect=False,
                preload_content=preload,
            )
            code = str(response.status)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise TransportError(f"{method} {path}: {error}") from error
        finally:
            with self._counting:
                self.calls[verb, resource_of(path), code] += 1
        return response

    def _credentials(self) -> dict[str, str]:
        """The bearer token, refreshed where it rotates; client certificates are the transport's."""
        token = self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return {"authorization": token} if token else {}


class ConnectError(Exception):
    """Nothing says where the API server is, or how to speak to it."""


def _always() -> bool:
    return True


def _load(configuration: Configuration, kubeconfig: Path | None, context: str | None) -> str:
    """Fill the configuration; returns the namespace that goes with it."""
    pod_namespace = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    files = [Path(name).expanduser() for name in KUBE_CONFIG_DEFAULT_LOCATION.split(":")]
    if kubeconfig is None and context is None and pod_namespace.exists() and not any(f.exists() for f in files):
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call] # the package is not typed
        return pod_namespace.read_text().strip()
    named = str(kubeconfig) if kubeconfig else None
    load_kube_config(  # type: ignore[no-untyped-call] # the package is not typed
        named, context=context, client_configuration=configuration, persist_config=False
    )
    contexts, active = list_kube_config_contexts(named)  # type: ignore[no-untyped-call] # the package is not typed
    chosen = next((c for c in contexts if c["name"] == context), active)
    return str(chosen["context"].get("namespace") or "default")

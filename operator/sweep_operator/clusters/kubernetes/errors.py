"""What an API server may answer instead of an object, and what may go wrong on the way to it.

Owns the exceptions and how an answer becomes one. Names are those of the Kubernetes API.
"""

import json
from collections.abc import Mapping
from typing import Any


class TransportError(OSError):
    """No usable answer came: refused, reset, timed out, or cut off."""


class NotLeading(Exception):
    """A write was not sent, because this process does not (or no longer) hold the Lease."""


class ApiError(Exception):
    """The API server answered with a Status that is no success."""

    def __init__(
        self,
        status: int,
        reason: str = "",
        message: str = "",
        retry_after: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        """Seconds, where the server asked for a pause."""
        self.details = details or {}


class Forbidden(ApiError):
    """403: by RBAC, by an admission policy, or because a quota is used up (`exceeded quota` in the message)."""


class NotFound(ApiError):
    """404: the object, its namespace or its kind is not there."""


class ConflictError(ApiError):
    """409 Conflict: another version or another UID than the one named, or a field that another manager owns."""


class AlreadyExists(ApiError):
    """409 AlreadyExists: an object of that name stands there."""


class Gone(ApiError):
    """410: the resourceVersion or the page's token is older than what the server remembers."""


class Invalid(ApiError):
    """422, or 400 for a document that cannot be read: it will never be accepted as it is."""


class TooMany(ApiError):
    """429: priority and fairness ask for a pause."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    403: Forbidden,
    404: NotFound,
    410: Gone,
    422: Invalid,
    429: TooMany,
}


def error_of(status: int, body: bytes, headers: Mapping[str, str]) -> ApiError:
    """The exception for an answer; a body that is no Status is quoted, shortened."""
    try:
        document = json.loads(body)
        document = document if isinstance(document, dict) else {}
    except ValueError:
        document = {}
    reason = str(document.get("reason") or "")
    message = str(document.get("message") or body[:500].decode(errors="replace"))
    details = document.get("details")
    kind = _BY_STATUS.get(status, ApiError)
    if status == 409:
        kind = AlreadyExists if reason == "AlreadyExists" else ConflictError
    return kind(status, reason, message, _seconds(headers.get("retry-after")), details)


def error_of_event(status: dict[str, Any]) -> ApiError:
    """The exception for an ERROR event inside a watch."""
    code = int(status.get("code") or 500)
    return _BY_STATUS.get(code, ApiError)(code, str(status.get("reason") or ""), str(status.get("message") or ""))


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, min(60.0, float(header))) if header else None
    except ValueError:  # the other form is a date, which no API server sends
        return None

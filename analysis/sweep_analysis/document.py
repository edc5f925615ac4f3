"""The form of everything that is written down: camelCase JSON, immutable, refusing what it does not know.

Owns the pydantic base class and the digest of a document. Knows nothing of any particular document.
"""

import hashlib
import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Document(BaseModel):
    """An immutable value with one JSON form; fields are snake_case in Python and camelCase in JSON."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def to_json(self) -> dict[str, Any]:
        """The document as plain JSON values; fields that are None are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def changed(self, **fields: Any) -> Self:
        """A copy with some fields replaced, validated again."""
        return type(self).model_validate({**self.__dict__, **fields})  # `dict(self)` costs more than the validation

    @property
    def content_digest(self) -> str:
        """`sha256:…` of the canonical JSON form."""
        return digest_of(self.to_json())


def digest_of(value: Any) -> str:
    """`sha256:…` of a JSON value: keys sorted, no blanks, so that equal values have equal digests."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()

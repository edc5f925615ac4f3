"""HTML that cannot be broken by what is put into it: every string is escaped unless this module made it.

Owns escaping and the spelling of elements. Knows nothing of sweeps.
"""

import html
from collections.abc import Iterable

_VOID = {"br", "col", "hr", "link", "meta", "wbr"}


class Markup(str):
    """A piece of finished HTML."""

    __slots__ = ()


Child = str | Markup | None
"""Text (escaped), finished HTML (kept), or nothing."""


def tag(name: str, /, *children: Child | Iterable[Child], **attributes: str | bool | None) -> Markup:
    """An element. `class_` writes `class`, other underscores become hyphens; True stands alone, None, False vanish."""
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: Child | Iterable[Child]) -> Markup:
    """Children one after another, without anything between them."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(html.escape(child, quote=False))
        else:
            parts.append(join(*child))
    return Markup("".join(parts))


def _attribute(key: str, value: str | bool | None) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    return f' {name}="{html.escape(value)}"'

"""A matplotlib figure as SVG inside a page: text stays text, colours follow the page, ids are its own.

Owns the translation. Needs nothing from outside the page: no fonts, no style sheet, no script.
"""

import io
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
from matplotlib.figure import Figure

from sweep_analysis.figures.style import ROLES, TIP

_HREF = "{http://www.w3.org/1999/xlink}href"
_COLOUR = re.compile("|".join(ROLES), re.IGNORECASE)
_FONT = re.compile(r"font-family:[^;]*;?\s*")
_FONT_SHORTHAND = re.compile(r"font:\s*(?:normal\s+)*((?:bold|[1-9]00)\s+)?([0-9.]+px)\s[^;]*")
_NUMBER = re.compile(r"-?\d+\.\d{3,}")


def inline_svg(figure: Figure, key: str, title: str, *, css_class: str = "") -> str:
    """The figure as one `<svg>` element. `key` makes its ids unique in the page; `title` says what the figure shows."""
    drawn = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ET.fromstring(drawn.getvalue())  # noqa: S314 -- the text was written by matplotlib in the line above
    _strip_namespaces(root)
    for unwanted in [*root.findall("metadata"), *(d for d in root.findall("defs") if d.find("style") is not None)]:
        root.remove(unwanted)  # the style sheet would apply to the whole page; what it says is inherited from here
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    referenced = set(re.findall(r"#([\w.-]+)", ET.tostring(root, encoding="unicode")))
    for element in root.iter():
        _restyle(element)
        _rename(element, key, referenced)
    for element in root.iter("g"):
        _hoist(element)
    root.attrib.pop("height", None)
    root.attrib.pop("width", None)
    root.attrib.pop("version", None)
    root.set("role", "img")
    root.set("aria-label", title)
    if css_class:
        root.set("class", css_class)
    return ET.tostring(root, encoding="unicode")


def _strip_namespaces(root: ET.Element) -> None:
    """Inside HTML, elements of an `<svg>` are SVG without saying so, and `href` has replaced `xlink:href`."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if _HREF in element.attrib:
            element.set("href", element.attrib.pop(_HREF))
        element.text = element.text if element.text and element.text.strip() else None
        element.tail = None


def _restyle(element: ET.Element) -> None:
    style = element.get("style")
    if style is not None:
        style = _COLOUR.sub(lambda match: f"var(--{ROLES[match.group().lower()]})", style)
        style = _FONT_SHORTHAND.sub(
            lambda match: f"font-size: {match[2]}; font-weight: {(match[1] or 'normal').strip()}", style
        )
        element.set("style", _FONT.sub("", style).strip())
    for name in ("d", "transform", "x", "y"):
        value = element.get(name)
        if value is not None:
            element.set(name, _NUMBER.sub(lambda match: f"{float(match.group()):.2f}", value).replace("\n", ""))


def _rename(element: ET.Element, key: str, referenced: set[str]) -> None:
    for name, value in list(element.attrib.items()):
        if name == "id":
            if value.startswith(TIP):
                tip = ET.Element("title")
                tip.text = value.removeprefix(TIP)
                element.insert(0, tip)
                element.set("class", "tip")
            if value in referenced and not value.startswith(TIP):
                element.set("id", f"{key}-{value}")
            else:
                del element.attrib["id"]
        elif name == "href" and value.startswith("#"):
            element.set("href", f"#{key}-{value[1:]}")
        elif "url(#" in value:
            element.set(name, value.replace("url(#", f"url(#{key}-"))


def _hoist(group: ET.Element) -> None:
    """What all children of a group say of themselves is said once, by the group: a cloud of points is half as heavy."""
    children = list(group)
    if len(children) < 2 or "style" in group.attrib or any(child.tag not in ("use", "path") for child in children):
        return
    style = children[0].get("style")
    if style is None or re.search(r"(?<!-)opacity", style) or any(child.get("style") != style for child in children):
        return  # opacity of the group would not be that of its members
    group.set("style", style)
    for child in children:
        del child.attrib["style"]

"""HTML that is escaped unless it was made here: a string becomes markup only through these functions."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

VOID = frozenset("br hr img input meta".split())


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: object) -> Html:
    """A value as text of an element or attribute; what cannot be printed, such as a mark that turns the direction of
    writing, is a question mark."""
    if isinstance(value, Html):
        return value
    line = str(value)
    if not line.isprintable():
        line = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in line)
    return Html(escape(line))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Parts, or lists of them, one after the other; None is nothing."""
    flat = (p for part in parts for p in (part if isinstance(part, (list, tuple)) else [part]))
    return Html(between.join(text(part) for part in flat if part is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element.

    Args:
        name: of the element.
        children: text, markup, or lists of them; None is nothing.
        attributes: `class_` is class, `data_x` is data-x; None and False leave one out, True writes its name alone.
    """
    opening = name
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        opening += f" {key}" if value is True else f' {key}="{text(value)}"'
    if name in VOID:
        return Html(f"<{opening}>")
    return Html(f"<{opening}>{join(children)}</{name}>")


Row = Iterable[object]


def table(caption: object, header: Row, rows: Iterable[Row], class_: str = "") -> Html:
    """A table that scrolls sideways where it has no room; the first cell of a row is its header."""
    return grouped(caption, header, [(None, rows)], class_)


def grouped(
    caption: object, header: Row, groups: Iterable[tuple[Html | None, Iterable[Row]]], class_: str = ""
) -> Html:
    """As `table`, of rows that stand together below a line of their own."""
    head = [cell if _is_cell(cell) else tag("th", cell, scope="col") for cell in header]
    bodies = []
    for title, rows in groups:
        line = tag("tr", tag("th", title, scope="rowgroup", colspan=len(head))) if title else None
        bodies.append(tag("tbody", line, [tag("tr", _row(row)) for row in rows]))
    whole = tag(
        "table",
        tag("caption", caption) if caption else None,
        tag("thead", tag("tr", head)),
        bodies,
        class_=class_ or None,
    )
    return tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=_plain(caption) or "Table")


def _row(row: Iterable[object]) -> list[Html]:
    first, *rest = row
    head = first if _is_cell(first) else tag("th", first, scope="row")
    return [text(head), *(text(cell) if _is_cell(cell) else tag("td", cell) for cell in rest)]


def _is_cell(value: object) -> bool:
    return isinstance(value, Html) and value.startswith(("<td", "<th"))


def _plain(value: object) -> str:
    return "" if isinstance(value, Html) or value is None else str(value)


def num(value: object) -> Html:
    """A cell of a number."""
    return tag("td", value, class_="n")


def details(summary: object, *children: object, open_: bool = False, **attributes: object) -> Html:
    """What unfolds."""
    return tag("details", tag("summary", summary), *children, open=open_, **attributes)

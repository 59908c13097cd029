"""Small drawings in the page's own colours: intervals, curves and tables of colours, as inline SVG and classes."""

from __future__ import annotations

from collections.abc import Sequence

from attrsens.engine.agreement import Matrix
from attrsens.render.html.markup import Html, join, num, table, tag
from attrsens.render.html.names import DASH, number

WIDTH, HEIGHT, EDGE = 132, 18, 5
CURVE_W, CURVE_H = 240, 110
SHADES = 16  # on either side of white
COLOURS = 8  # of lines, then dashed
Ends = Sequence[float] | None


class Axis:
    """What the dots and whiskers of one quantity share.

    Args:
        values, intervals: that have to be on it.
        zero: whether 0 has to be.
    """

    def __init__(self, values: Sequence[float | None], intervals: Sequence[Ends], zero: bool = False) -> None:
        found = [v for v in values if v is not None] + [end for ends in intervals if ends for end in ends]
        found += [0.0] if zero else []
        low, high = min(found, default=0.0), max(found, default=1.0)
        margin = (high - low) * 0.02 or abs(high) * 0.1 or 1.0
        self.low, self.high = low - margin, high + margin

    def at(self, value: float) -> float:
        return round(EDGE + (value - self.low) / (self.high - self.low) * (WIDTH - 2 * EDGE), 1)

    def plot(self, value: float | None, ends: Ends, floor: float | None = None, ceiling: float | None = None) -> Html:
        """Dot, whisker, a line at zero, and ticks at floor and ceiling where the axis reaches them."""
        if value is None and not ends:
            return Html("")
        parts = [_line(EDGE, 9, WIDTH - EDGE, 9, "axis")]
        if self.low < 0 < self.high:
            parts.append(_line(self.at(0), 1, self.at(0), 17, "zero"))
        for mark, class_ in ((floor, "floor"), (ceiling, "ceiling")):
            if mark is not None and self.low <= mark <= self.high:
                parts.append(_line(self.at(mark), 3, self.at(mark), 15, class_))
        if ends:
            parts.append(_line(self.at(ends[0]), 9, self.at(ends[1]), 9, "whisker"))
        if value is not None:
            parts.append(tag("circle", cx=self.at(value), cy=9, r=3.5))
        return _svg(WIDTH, HEIGHT, "dots", parts)


def curves(title: str, lines: Sequence[tuple[str, Sequence[float]]], legend: bool = True) -> Html:
    """A panel of curves, each from its first point to its last, on an axis that holds zero."""
    points = [v for _, line in lines for v in line]
    low, high = min(0.0, *points), max(0.0, *points)
    high = high if high > low else low + 1
    left, top, longest = 36, 6, max(len(line) for _, line in lines)

    def at(v: float) -> float:
        return round(top + CURVE_H * (high - v) / (high - low), 1)

    parts = [
        tag("rect", x=left, y=top, width=CURVE_W, height=CURVE_H, class_="frame"),
        _line(left, at(0), left + CURVE_W, at(0), "zero"),
        tag("text", number(high, 2), x=left - 4, y=top + 8, class_="end"),
        tag("text", number(low, 2), x=left - 4, y=top + CURVE_H, class_="end"),
        tag("text", "first", x=left, y=top + CURVE_H + 13),
        tag("text", f"last of {longest}", x=left + CURVE_W, y=top + CURVE_H + 13, class_="end"),
    ]  # fmt: skip
    for i, (_, line) in enumerate(lines):
        step = CURVE_W / max(1, len(line) - 1)
        path = " ".join(f"{left + k * step:.0f},{at(v):g}" for k, v in enumerate(line))
        if len(line) == 1:
            parts.append(tag("circle", cx=left, cy=at(line[0]), r=3, class_=f"dot {_colour(i)}"))
        else:
            parts.append(tag("polyline", points=path, class_=_colour(i)))
    names = [tag("li", tag("i", class_=_colour(i), aria_hidden="true"), name) for i, (name, _) in enumerate(lines)]
    picture = _svg(left + CURVE_W + 4, top + CURVE_H + 18, "curve", parts, f"Curve of {title}")
    key = tag("ul", names, class_="key") if legend else None
    return tag("figure", tag("figcaption", title), picture, key, class_="plot")


def matrix(caption: str, names: Sequence[str], of: Matrix) -> Html:
    """A table of colours: above the diagonal the similarity, below it the rescaled one, which colours both."""
    rows = []
    for i, name in enumerate(names):
        cells: list[object] = [tag("th", tag("b", i + 1), " ", name, scope="row")]
        for j in range(len(names)):
            pair = min(i, j), max(i, j)
            value = of.mean.get(pair) if i < j else of.rescaled.get(pair)
            cells.append(
                num("") if i == j else tag("td", _two(value), class_=f"n {shade(of.rescaled.get(pair))}".strip())
            )
        rows.append(cells)
    return table(caption, ["", *(tag("th", i + 1, scope="col", class_="n") for i in range(len(names)))], rows, "matrix")


def shade(value: float | None) -> str:
    """The class of a colour from -1 (blue) over 0 (white) to 1 (red)."""
    return "" if value is None else f"k{round(max(-1.0, min(1.0, value)) * SHADES) + SHADES}"


def shades() -> str:
    """The style of all `shade`s."""
    from attrsens.render.picture import palette

    rules = []
    for k in range(2 * SHADES + 1):
        r, g, b = (int(c) for c in palette()[k * 128 // SHADES])
        ink = "#111" if 0.3 * r + 0.59 * g + 0.11 * b > 125 else "#fff"
        rules.append(f".k{k}{{background:#{r:02x}{g:02x}{b:02x};color:{ink}}}")
    return "".join(rules)


def ramp() -> str:
    """The colours of the bar for the style: blue, white, red."""
    from attrsens.render.picture import palette

    return ",".join("#" + bytes(c).hex() for c in palette()[:: 256 // 16])


def _two(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}".replace("-", "−")


def _colour(i: int) -> str:
    return f"l{i % COLOURS}" + (" dash" if i // COLOURS % 2 else "")


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def _svg(width: int, height: int, class_: str, parts: list[Html], label: str | None = None) -> Html:
    role = {"role": "img", "aria_label": label} if label else {"aria_hidden": "true"}
    attributes: dict[str, object] = {"class_": class_, "width": width, "height": height, **role}
    return Html(str(tag("svg", join(parts), **attributes)).replace("<svg", f'<svg viewBox="0 0 {width} {height}"', 1))

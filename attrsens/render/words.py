"""Text from outside, such as a file's name, made safe to stand in one line of a file of ours."""

from __future__ import annotations

from attrsens.engine.report import Failure


def one_line(text: str, most: int = 500) -> str:
    """White space of any kind becomes one space, what cannot be printed a question mark, a long text's end `...`."""
    line = " ".join(text[: 4 * most].split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= most else line[: most - 3] + "..."


def subject(failure: Failure) -> str:
    """The input that failed, with model, method and class where the failure is theirs alone."""
    parts = [failure.image, failure.model, failure.method]
    parts.append(f"class {failure.target}" if failure.target is not None else None)
    return ", ".join(part for part in parts if part)


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"

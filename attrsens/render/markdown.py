"""A summary in Markdown, which is also what a step of GitHub Actions shows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from attrsens.engine.gates import in_words, whose
from attrsens.engine.report import Aggregate, Comparison, Report
from attrsens.errors import OutputError
from attrsens.render.words import number, one_line, subject

MARK = "<!-- attrsens report -->"
ROOM = 200_000  # bytes for a table; there are four, and a step's summary may have 1 MiB
MOST = 1_000_000  # bytes of a step's summary, other commands' parts among them
_SPECIAL = re.compile(
    r"""[\\`*\[\]<>|~&#!$@"'{}]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=www)\.""", re.IGNORECASE
)


def escaped(text: str, most: int = 300) -> str:
    """Text of one line that no reader of Markdown takes for markup: what could be is written as entities."""
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", one_line(text, most))


def code(text: str, most: int = 300) -> str:
    """Text from outside in a fixed pitch; the tag also keeps GitHub from linking names and numbers in it."""
    return f"<code>{escaped(text, most)}</code>"


def to_markdown(report: Report) -> str:
    """Gates, aggregates, comparisons and failures as tables, below 900 KiB; what has no room is counted."""
    p = report.provenance
    images = len({record.image.sha256 for record in report.records})
    counts = f"{len(report.records)} maps of {images} images, {len(report.skipped)} left out"
    versions = f"attrsens {p.versions.get('attrsens', '?')}, torch {p.versions.get('torch', '?')}"
    lines = [MARK, "", f"## attrsens {report.command}: {_verdict(report)}", ""]
    lines += [f"{counts}, {p.seconds:.1f} s; {escaped(versions)}, {escaped(p.device)}", ""]
    lines += _table(
        "Gates",
        ["", "fails if", "observed"],
        ([_mark(g.passed), code(g.expression), code(in_words(g), 600)] for g in report.gates),
        len(report.gates),
    )
    lines += _table(
        "Over images",
        ["quantity", "of", "mean", "sd", "95 % interval", "n", "missing"],
        map(_aggregated, report.aggregates),
        len(report.aggregates),
    )
    lines += _table(
        "Comparisons",
        ["quantity", "a", "b", "a - b", "95 % interval", "effect size", "p (Holm)", "n"],
        map(_compared, report.comparisons),
        len(report.comparisons),
    )
    lines += _table(
        "Failures",
        ["input", "stage", "message"],
        ([code(subject(f)), escaped(f.stage), code(f.message)] for f in report.failures),
        len(report.failures),
    )
    return "\n".join(lines)


def append_summary(path: Path, report: Report) -> None:
    """Add the report to a step's summary; only its heading where the step has no room left.

    Raises:
        OutputError: it cannot be written.
    """
    text = to_markdown(report)
    used = 0
    with suppress(OSError):
        used = path.stat().st_size
    if used + len(text.encode()) > MOST:
        text = f"## attrsens {report.command}: {_verdict(report)}\n"
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" + text + "\n")
    except OSError as error:
        raise OutputError(f"the step's summary {path} cannot be written ({error.strerror})") from None


def _verdict(report: Report) -> str:
    failed = sum(not gate.passed for gate in report.gates)
    words = []
    if report.provenance.interrupted:
        words.append("interrupted")
    if failed:
        words.append(f"{failed} of {len(report.gates)} gates failed")
    elif report.gates:
        words.append("the gate passed" if len(report.gates) == 1 else f"all {len(report.gates)} gates passed")
    if report.failures:
        words.append("1 failure" if len(report.failures) == 1 else f"{len(report.failures)} failures")
    return ", ".join(words) or "done"


def _table(title: str, header: list[str], rows: Iterable[list[str]], count: int) -> Iterator[str]:
    if not count:
        return
    yield from (f"### {title}", "", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}")
    room, shown = ROOM, 0
    for row in rows:
        line = f"| {' | '.join(row)} |"
        room -= len(line.encode()) + 1
        if room < 0:
            break
        yield line
        shown += 1
    yield ""
    if shown < count:
        yield from (f"{count - shown} more in report.json.", "")


def _aggregated(a: Aggregate) -> list[str]:
    missing = f"{a.missing}: {escaped('; '.join(a.reasons))}" if a.reasons else str(a.missing)
    numbers = [number(a.mean), number(a.sd), _interval(a.ci95)]
    return [code(a.quantity), code(whose(a.group)), *numbers, str(a.n), missing]


def _compared(c: Comparison) -> list[str]:
    numbers = [number(c.difference), _interval(c.ci95), number(c.effect_size), number(c.p_holm)]
    return [code(c.quantity), code(whose(c.a)), code(whose(c.b)), *numbers, str(c.n)]


def _interval(ends: tuple[float, float] | None) -> str:
    return f"{number(ends[0])} to {number(ends[1])}" if ends else "-"


def _mark(passed: bool) -> str:
    return "✅ passed" if passed else "❌ failed"

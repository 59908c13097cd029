"""A summary in Markdown, which is also what a step of GitHub Actions shows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrsens.engine.agreement import brief
from attrsens.engine.gates import in_words, whose
from attrsens.engine.report import Aggregate, Comparison, Report
from attrsens.errors import OutputError
from attrsens.render.words import number, one_line, subject

MARK = "<!-- attrsens report -->"
ROOM = 150_000  # bytes for a table; there are six, and a step's summary may have 1 MiB
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
    """Gates, aggregates, comparisons, knobs and failures as tables, below 900 KiB; what has no room is counted."""
    p = report.provenance
    images = len({record.image.sha256 for record in report.records})
    counts = f"{len(report.records)} maps of {images} images, {len(report.skipped)} left out"
    versions = f"attrsens {p.versions.get('attrsens', '?')}, torch {p.versions.get('torch', '?')}"
    said = labels(report)
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
        (_aggregated(a, said) for a in report.aggregates),
        len(report.aggregates),
    )
    lines += _table(
        "Comparisons",
        ["quantity", "a", "b", "a - b", "95 % interval", "effect size", "p (Holm)", "n"],
        (_compared(c, said) for c in report.comparisons),
        len(report.comparisons),
    )
    effects = [e for e in report.effects if e.kind in ("knob_effect", "seed_effect")]
    lines += _table(
        "Which knob matters",
        ["knob", "method", "model", "effect", "95 % interval", "n", "note"],
        (_effect(e, said) for e in effects),
        len(effects),
    )
    verdicts = [e for e in report.effects if e.kind in ("knob_verdict", "method_verdict") and e.more]
    lines += _table(
        "What matters more",
        ["verdict", "method", "model", "difference of the effects", "95 % interval", "p (Holm)", "n"],
        (_told(e, said) for e in verdicts),
        len(verdicts),
    )
    lines += _table(
        "Failures",
        ["input", "stage", "message"],
        ([code(subject(f)), escaped(f.stage), code(f.message)] for f in report.failures),
        len(report.failures),
    )
    return "\n".join(lines)


def labels(report: Report) -> dict[str, str]:
    """What the methods of a sweep are called, by base: their title; where two share one, with what tells them apart."""
    rows = [*report.aggregates, *report.effects]
    titles = {r.group["base"]: str(r.group["method"]) for r in rows if "base" in r.group and "method" in r.group}
    starts = report.config.get("reference")
    swept = {base: _without(brief(base), starts[base]) if starts and base in starts else brief(base) for base in titles}
    forms = titles, swept, {base: brief(base) for base in titles}
    return {base: next((f[base] for f in forms if list(f.values()).count(f[base]) == 1), base) for base in titles}


def _without(expression: str, knobs: Iterable[str]) -> str:
    """An expression without some of the method's own parameters."""
    head, plus, rest = expression.partition("+")
    name, _, given = head.partition(":")
    kept = ",".join(part for part in given.split(",") if part.partition("=")[0] not in knobs)
    return (f"{name}:{kept}" if kept else name) + plus + rest


def verdict(e: Any, said: Mapping[str, str]) -> str:
    """A verdict on two knobs or methods that says something, in words; methods by their labels."""
    a, b = said.get(e.a, e.a), said.get(e.b, e.b)
    return f"{a} matters more than {b}" if e.more == e.a else f"{b} matters more than {a}"


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


def _aggregated(a: Aggregate, said: Mapping[str, str]) -> list[str]:
    missing = f"{a.missing}: {escaped('; '.join(a.reasons))}" if a.reasons else str(a.missing)
    numbers = [number(a.mean), number(a.sd), _interval(a.ci95)]
    return [code(a.quantity), code(_whose(a.group, said)), *numbers, str(a.n), missing]


def _compared(c: Comparison, said: Mapping[str, str]) -> list[str]:
    numbers = [number(c.difference), _interval(c.ci95), number(c.effect_size), number(c.p_holm)]
    return [code(c.quantity), code(_whose(c.a, said)), code(_whose(c.b, said)), *numbers, str(c.n)]


def _whose(group: dict[str, Any], said: Mapping[str, str]) -> str:
    """As `whose`, methods of one title told apart."""
    label = said.get(group.get("base", ""))
    return whose(group | {"method": label} if label else group)


def _effect(e: Any, said: Mapping[str, str]) -> list[str]:
    knob = "seed" if e.kind == "seed_effect" else e.knob
    where = [code(said.get(e.group.get("base"), "-")), code(str(e.group.get("model", "-")))]
    return [code(knob), *where, number(e.effect), _interval(e.ci95), str(e.n), escaped(e.reason or "")]


def _told(e: Any, said: Mapping[str, str]) -> list[str]:
    method = said.get(e.group.get("base"), "")
    numbers = [number(e.difference), _interval(e.ci95), number(e.p_holm), str(e.n)]
    return [code(verdict(e, said)), code(method) if method else "-", code(str(e.group.get("model", "-"))), *numbers]


def _interval(ends: tuple[float, float] | None) -> str:
    return f"{number(ends[0])} to {number(ends[1])}" if ends else "-"


def _mark(passed: bool) -> str:
    return "✅ passed" if passed else "❌ failed"

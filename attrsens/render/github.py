"""Annotations of GitHub Actions: lines of a log that show on the run's page and beside the files they name."""

from __future__ import annotations

from attrsens.engine.gates import in_words
from attrsens.engine.report import Gate, Report
from attrsens.render.words import one_line, subject

MOST = 10  # GitHub shows no more errors of a step


def annotation_lines(report: Report) -> list[str]:
    """`::error` lines, failed gates first, then failed inputs with their file; the tenth counts those left out."""
    lines = [_error(f"{g.expression}: {in_words(g)}", title="attrsens gate failed") for g in _failed(report)]
    for failure in report.failures[: MOST + 1]:
        message = failure.message if failure.image in failure.message else f"{subject(failure)}: {failure.message}"
        lines.append(_error(message, file=failure.image, title=f"attrsens {failure.stage} failed"))
    total = len(_failed(report)) + len(report.failures)
    if total > MOST:
        rest = f"{total - MOST + 1} further failures; see report.json"
        lines = [*lines[: MOST - 1], _error(rest, title="attrsens")]
    return lines


def _failed(report: Report) -> list[Gate]:
    return [gate for gate in report.gates if not gate.passed]


def _error(message: str, **properties: str) -> str:
    given = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::error {given}::{_data(one_line(message, 1000))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(one_line(text)).replace(":", "%3A").replace(",", "%2C")

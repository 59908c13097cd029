"""What a pipeline is told beside the files: failed gates, annotations, the summary of a step."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from attrsens.cli import console
from attrsens.engine.gates import in_words
from attrsens.engine.report import Report
from attrsens.errors import OutputError
from attrsens.render.github import annotation_lines
from attrsens.render.markdown import append_summary


def announce(report: Report, formats: Iterable[str], quiet: bool) -> None:
    """Say on stderr how the gates went; with the format github also as annotations (GitHub reads both streams, and
    stdout is for data); with md or github append to $GITHUB_STEP_SUMMARY where that is set. A summary that cannot be
    written is said, and changes nothing else."""
    for gate in report.gates:
        line = f"gate {'passed' if gate.passed else 'failed'}: {gate.expression}: {in_words(gate)}"
        if not gate.passed:
            console.error(line)
        elif not quiet:
            console.note(line)
    if "github" in formats:
        for line in annotation_lines(report):
            console.note(line)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary and {"md", "github"} & set(formats):
        try:
            append_summary(Path(summary), report)
        except OutputError as error:
            console.error(str(error))


def exit_code(report: Report) -> int:
    """1 if a gate failed, whatever else did; 3 if an input failed; else 0."""
    if not all(gate.passed for gate in report.gates):
        return 1
    return 3 if report.failures else 0

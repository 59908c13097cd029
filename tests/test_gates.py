"""Gates and what pipelines read: conditions, exit codes, JUnit XML, Markdown, GitHub's annotations and summary."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import yaml
from jsonschema import Draft202012Validator
from markdown_it import MarkdownIt
from PIL import Image
from test_api import picture
from toys import small

import attrsens
from attrsens.cli import console
from attrsens.engine import gates
from attrsens.engine.gates import Threshold, in_words, outcome, parse_gates, quantities, resolve
from attrsens.engine.metrics import Judging, parse_metrics
from attrsens.engine.report import (
    Aggregate,
    Comparison,
    Failure,
    Gate,
    PassInfo,
    Provenance,
    Report,
    json_schema,
    to_json,
)
from attrsens.engine.stats import aggregates
from attrsens.errors import AttrsensError
from attrsens.render.github import annotation_lines
from attrsens.render.junit import to_junit
from attrsens.render.markdown import append_summary, escaped, to_markdown
from attrsens.render.words import one_line

HOSTILE = [
    "two\nlines",
    "a\r\n::error::b",
    "::error file=x::y",
    "##[error]z",
    "quote \" and ' and `tick` ``two``",
    "pipe | pipe \\| back\\",
    "<script>alert(1)</script> & &amp; <!-- ]]> -->",
    "[link](http://evil.example) ![x](y) https://a.example www.b.example",
    "*bold* _it_ __b__ ~~s~~ #1 @someone $x$ {{ }} :smile:",
    "\x00\x07\x1b[31m\x7f\x85\u2028\u202e\ufffe",
    "undecodable \udcff",
    "100%25 %0A",
    "a,b=c;d",
    "x" * 5000,
    "猫" * 500,
    "   ",
]


def row(quantity: str, mean: float | None, ci95: tuple[float, float] | None = None, **group: Any) -> Aggregate:
    reasons = {} if mean is not None else {"nothing there": 2}
    return Aggregate(quantity, {"model": "m", "expression": "sg:n=2", **group}, mean, 0.1, ci95, 8, 0, reasons)


def made(**parts: Any) -> Report:
    provenance = Provenance(
        *({"attrsens": "0.1.0", "torch": "2"}, {}, "cpu", 1, [], "2026-01-02T03:04:05+00:00", 1.25, 0, 0),
        *(PassInfo(), None, parts.pop("interrupted", False)),
    )
    return Report("score", {}, [], parts.pop("failures", []), provenance, **parts)


def of(text: str, *rows: Aggregate) -> Gate:
    (gate,) = parse_gates(text)
    return outcome(gate, rows)


# -- conditions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("ssim<0.6", ("ssim", None, "<", 0.6)),
        ("ssim <= .6", ("ssim", None, "<=", 0.6)),
        (" ssim.low>=-1e-3 ", ("ssim", "low", ">=", -0.001)),
        ("ssim.high>2", ("ssim", "high", ">", 2)),
        ("max_sensitivity:n=7>2", ("max_sensitivity:n=7", None, ">", 2)),
        ("max_sensitivity:n=7,radius=0.2.low>=2", ("max_sensitivity:n=7,radius=0.2", "low", ">=", 2)),
        ("gini (rescaled)<0", ("gini (rescaled)", None, "<", 0)),
        ("correlation(-alignment, loc) < 0.1", ("correlation(-alignment, loc)", None, "<", 0.1)),
    ],
)
def test_a_condition_is_a_quantity_a_sign_and_a_number(text: str, parts: tuple[Any, ...]) -> None:
    (gate,) = parse_gates([text])
    assert (gate.quantity, gate.end, gate.sign, gate.bound) == parts
    assert gate.expression == " ".join(text.split())


@pytest.mark.parametrize(
    "text",
    ["", "ssim", "ssim=0.6", "ssim==0.6", "ssim!=1", "<0.6", "ssim<", "ssim<x", "ssim<nan", "ssim<inf", "ssim<6%"],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(AttrsensError, match="is no condition; write a quantity"):
        parse_gates(text)


def test_repeats_are_dropped_and_order_stays() -> None:
    assert [g.expression for g in parse_gates(["b<1", "a>1", "b<1"])] == ["b<1", "a>1"]
    assert parse_gates(None) == ()


@pytest.mark.parametrize(
    ("sign", "below", "at", "above"),
    [("<", True, False, False), ("<=", True, True, False), (">", False, False, True), (">=", False, True, True)],
)
def test_the_four_signs(sign: str, below: bool, at: bool, above: bool) -> None:
    for value, fails in ((0.4, below), (0.5, at), (0.6, above)):
        gate = of(f"ssim{sign}0.5", row("ssim", value))
        assert (gate.passed, gate.observed, gate.rows, gate.failed) == (not fails, value, 1, int(fails))
        assert gate.reason is None


def test_every_row_of_the_quantity_is_tested_and_the_worst_is_observed() -> None:
    rows = [row("ssim", 0.7), row("ssim", 0.2, to="b"), row("ssim", 0.4), row("gini", 0.01)]
    gate = of("ssim<0.5", *rows)
    assert (gate.passed, gate.observed, gate.rows, gate.failed) == (False, 0.2, 3, 2)
    assert gate.group == rows[1].group
    assert in_words(gate) == "0.2 (2 of 3 rows fail; the worst: m, sg:n=2, to=b)"
    gate = of("ssim>0.9", *rows)
    assert (gate.passed, gate.observed, gate.failed) == (True, 0.7, 0), "nearest to failing"
    assert in_words(gate) == "0.7 (3 rows; the worst: m, sg:n=2)"


def test_the_ends_of_the_interval() -> None:
    rows = [row("ssim", 0.5, (0.3, 0.7)), row("ssim", 0.5, (0.4, 0.9))]
    assert of("ssim.low<0.3", *rows).passed
    assert of("ssim.low<=0.3", *rows).observed == 0.3
    assert not of("ssim.low<=0.3", *rows).passed
    assert of("ssim.high>0.8", *rows).observed == 0.9
    assert not of("ssim.high>0.8", *rows).passed


def test_no_value_fails_with_a_reason() -> None:
    gate = of("ssim<0.5", row("ssim", None), row("ssim", 0.9))
    assert (gate.passed, gate.observed, gate.rows, gate.failed) == (False, None, 2, 1)
    assert gate.reason == "nothing there"
    gate = of("ssim.low<0.5", row("ssim", 0.9))
    assert (gate.passed, gate.observed) == (False, None)
    assert gate.reason == "no interval: too few images, or all values are equal"
    gate = of("ssim<0.5", row("ssim", None), row("ssim", 0.1))
    assert (gate.observed, gate.failed, gate.reason) == (0.1, 2, None), "a number that fails says more"
    gate = of("ssim<0.5", row("gini", 0.9))
    assert (gate.passed, gate.observed, gate.rows) == (False, None, 0)
    assert gate.reason == "there is no row of this quantity"


def test_an_interrupted_run_passes_no_gate() -> None:
    report = made(interrupted=True, aggregates=[row("ssim", 0.9)])
    gates.judge(report, parse_gates("ssim<0.5"))
    assert [(g.passed, g.observed, g.reason) for g in report.gates] == [
        (False, None, "not tested: the run was interrupted")
    ]


def test_judging_again_replaces_its_own_gates_only() -> None:
    report = made(aggregates=[row("ssim", 0.9)], gates=[Gate("baseline", True, 0.0)])
    gates.judge(report, parse_gates(["ssim<0.5", "gini<1"]))
    report.aggregates.append(row("gini", 2.0))
    gates.judge(report, parse_gates(["ssim<0.5", "gini<1"]))
    assert [(g.expression, g.passed) for g in report.gates] == [
        ("ssim<0.5", True),
        ("gini<1", True),
        ("baseline", True),
    ]


# -- which quantities there are ----------------------------------------------------------------------------------------


def asked(*texts: str, calibrate: bool | None = None) -> list[str]:
    return quantities(Judging(*parse_metrics(texts), None, calibrate))


@pytest.mark.parametrize("calibrate", [None, True, False])
def test_the_quantities_of_a_run_are_known_beforehand(calibrate: bool | None) -> None:
    metrics = [
        "gini,deletion,max_sensitivity,stability_rate,ssim,spearman",
        "deletion:fill=black",
        "max_sensitivity:n=7",
    ]
    images = [picture(i) for i in range(2)]
    options = {"model": small(), "method": ["sg:n=2", "grad"], "metrics": metrics, "calibrate": calibrate}
    report = attrsens.score(images, **options, cache=False)
    found = {a.quantity for a in aggregates(report.records)}
    foreseen = asked(*metrics, calibrate=calibrate)
    assert found == set(foreseen)
    assert len(foreseen) == len(set(foreseen))
    assert ("gini (rescaled)" in found) == (calibrate is not False)


def test_correlations_are_foreseen() -> None:
    assert "correlation(-alignment, loc)" in asked("alignment,loc")
    assert not any("correlation" in name for name in asked("loc"))


def test_a_quantity_may_be_written_with_its_defaults() -> None:
    known = asked("max_sensitivity:n=7,radius=0.2", "gini")
    (gate,) = resolve(parse_gates("max_sensitivity:radius=0.2,n=7,space=pixel>3"), known)
    assert gate.quantity == "max_sensitivity:n=7,radius=0.2"
    assert gate.known
    (gate,) = resolve(parse_gates("gini:offset=0 (rescaled)<1"), known)
    assert gate.quantity == "gini (rescaled)"
    (gate,) = resolve(parse_gates("whatever<1"), None)
    assert (gate.quantity, gate.known) == ("whatever", False)


def test_an_unknown_quantity_names_the_nearest() -> None:
    message = "unknown quantity 'gni'; did you mean 'gini'.* quantities of this run: ssim, gini"
    with pytest.raises(AttrsensError, match=message):
        resolve(parse_gates("gni<1"), ["ssim", "gini"])
    with pytest.raises(AttrsensError, match="maps alone have no quantity to test; 'attrsens score' has"):
        attrsens.explain(picture(), model=small(), fail_if="ssim<1")
    with pytest.raises(AttrsensError, match="unknown quantity 'ssim'"):
        attrsens.score(picture(), model=small(), metrics="gini", fail_if="ssim<1")


def test_a_quantity_known_only_afterwards() -> None:
    report = made(aggregates=[row("ssim", 0.9)])
    with pytest.raises(AttrsensError, match="unknown quantity 'gini'"):
        gates.check_found(report, [Threshold("gini<1", "gini", None, "<", 1)])
    gates.check_found(report, [Threshold("gini<1", "gini", None, "<", 1, known=True), *parse_gates("ssim<1")])
    gates.check_found(made(), parse_gates("gini<1"))


def test_the_report_notes_gates_and_states_them() -> None:
    images = [picture(i) for i in range(6)]
    conditions = ["gini>0.99", "gini.low<0", "gini<2"]
    report = attrsens.score(images, model=small(), method="grad", metrics="gini", fail_if=conditions, cache=False)
    assert [g.passed for g in report.gates] == [True, True, False]
    assert report.gates[0].observed == report.aggregates[0].mean
    assert report.gates[1].observed == report.aggregates[0].ci95[0]
    data = json.loads(to_json(report))
    Draft202012Validator(json_schema()).validate(data)
    assert data["config"]["fail_if"] == conditions
    assert {"expression", "passed", "observed"} < set(data["gates"][0])


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (230, 230, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


SCORE = ("--method", "constant", "--metrics", "gini", "--no-calibrate")


def test_exit_codes_of_gates(run_cli, photos: Path, tmp_path: Path) -> None:
    """A failed gate wins over failed inputs; without a failed gate never 1."""
    out = ("--out", tmp_path / "out")
    code, stdout, stderr = run_cli("score", photos, *SCORE, *out, "--fail-if", "gini>0.5")
    assert code == 0
    assert "gate passed: gini>0.5: 0 (1 row; lite0, constant:" in stderr
    assert "gini>0.5" not in stdout
    code, _, stderr = run_cli("score", photos, *SCORE, *out, "-q", "--fail-if", "gini>0.5", "--fail-if", "gini<=0.5")
    assert code == 1
    assert stderr.startswith("attrsens: gate failed: gini<=0.5: 0 (1 row; lite0, constant:")
    assert stderr.count("\n") == 1
    saved = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert [(g["expression"], g["passed"], g["observed"]) for g in saved["gates"]] == [
        ("gini>0.5", True, 0),
        ("gini<=0.5", False, 0),
    ]
    (photos / "broken.png").write_text("no picture")
    assert run_cli("score", photos, *SCORE, *out)[0] == 3
    assert run_cli("score", photos, *SCORE, *out, "--fail-if", "gini>0.5")[0] == 3
    assert run_cli("score", photos, *SCORE, *out, "--fail-if", "gini<0.5")[0] == 1
    assert run_cli("score", photos / "broken.png", *SCORE, *out, "--fail-if", "gini>0.5")[0] == 1, "nothing was tested"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "--metrics", "gini", "--fail-if", "gini=1"], "fail-if 'gini=1' is no condition"),
        (["score", "--metrics", "gini", "--fail-if", "ssim<1"], "unknown quantity 'ssim'"),
        (["score", "--metrics", "gini", "--deletion-fill", "black"], "deletion has 'fill' set"),
        (
            ["score", "--metrics", "deletion:fill=black", "--fail-if", "deletion>1"],
            "did you mean 'deletion:fill=black'?",
        ),
        (["explain", "--fail-if", "ssim<1"], "maps alone have no quantity to test"),
        (["explain", "--format", "junit,xml"], "unknown format 'xml'; formats: png, npy, csv, junit, md, github"),
    ],
)
def test_mistakes_cost_no_work(run_cli, tmp_path: Path, arguments: list[str], message: str) -> None:
    code, stdout, stderr = run_cli(*arguments, "--out", tmp_path / "out")
    assert code == 2
    assert message in stderr
    assert stderr.count("\n") == 1
    assert not stdout
    assert not (tmp_path / "out").exists()


def test_all_formats_of_one_run(run_cli, photos: Path, tmp_path: Path, monkeypatch) -> None:
    (photos / "bro%ken,1.png").write_text("no picture")
    summary, out = tmp_path / "summary.md", tmp_path / "out"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    formats = ("--format", "junit,md,github", "--fail-if", "gini<0.5", "--out", out)
    code, stdout, stderr = run_cli("score", photos, *SCORE, *formats, "--json", "-")
    assert code == 1
    json.loads(stdout)
    assert sorted(p.name for p in out.iterdir()) == ["heatmaps", "junit.xml", "report.html", "report.json", "report.md"]
    commands = [parsed for line in stderr.splitlines() if (parsed := command(line))]
    assert [c[0] for c in commands] == ["error", "error"]
    assert commands[0][1] == {"title": "attrsens gate failed"}
    assert commands[0][2].startswith("gini<0.5: 0 (1 row")
    assert commands[1][1] == {"title": "attrsens decode failed", "file": str(photos / "bro%ken,1.png")}
    assert "not an image" in commands[1][2]
    (suite,) = checked_junit((out / "junit.xml").read_bytes())
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["2", "1", "1"]
    assert summary.read_text() == f"before\n\n{(out / 'report.md').read_text()}\n"
    again, _, _ = run_cli("score", photos, *SCORE, *formats)
    assert again == 1, "its own files are replaced"
    before = summary.read_text()
    assert run_cli("score", photos, *SCORE, "--format", "junit", "--out", out)[0] == 3
    assert summary.read_text() == before, "only with md or github"


@pytest.mark.parametrize(("name", "format"), [("junit.xml", "junit"), ("report.md", "md")])
def test_foreign_files_are_not_replaced(run_cli, photos: Path, tmp_path: Path, name: str, format: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine\n")
    arguments = ("score", photos, *SCORE, "--format", format, "--out", out)
    code, _, stderr = run_cli(*arguments)
    assert code == 2
    assert f"{name} was not written by attrsens" in stderr
    assert (out / name).read_text() == "mine\n"
    assert run_cli(*arguments, "--force")[0] == 0
    assert (out / name).read_text() != "mine\n"


def test_a_summary_that_cannot_be_written_is_said_and_no_more(run_cli, photos, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    code, _, stderr = run_cli("score", photos, *SCORE, "--format", "md", "--out", tmp_path / "out")
    assert code == 0
    assert "the step's summary" in stderr
    assert "cannot be written" in stderr


def test_names_in_the_log_give_no_commands(run_cli, photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for name in ("##[error]a.png", "x\n::error::b.png"):
        (photos / name).write_text("no picture")
    code, _, stderr = run_cli("score", photos, *SCORE, "--out", tmp_path / "out")
    assert code == 3
    assert "##[" not in stderr
    assert not any(command(line) for line in stderr.splitlines())


def test_a_note_is_one_line(capsys) -> None:
    console.note("model m\n::error::pwn.safetensors")
    assert capsys.readouterr().err == "model m ::error::pwn.safetensors\n"


def test_names_in_the_results_give_no_commands_lines_or_fields(run_cli, photos: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (photos / "0.png").rename(photos / "##[error]a\tb.png")
    (photos / "1.png").rename(photos / "x\n::error::b.png")
    code, stdout, _ = run_cli("score", photos, *SCORE, "--out", tmp_path / "out")
    assert code == 0
    assert "##[" not in stdout
    assert not any(command(line) for line in stdout.splitlines())
    assert [line.count("\t") for line in stdout.splitlines()] == [7, 7, 7]


# -- JUnit XML ---------------------------------------------------------------------------------------------------------


def checked_junit(data: bytes) -> list[ET.Element]:
    """The suites, after checking what Ant's and Jenkins' schemas ask for."""
    root = ET.fromstring(data)
    assert root.tag == "testsuites"
    assert not root.attrib, "Ant's schema knows none here"
    required = {"name", "package", "id", "timestamp", "hostname", "tests", "failures", "errors", "time"}
    for i, suite in enumerate(root):
        assert suite.tag == "testsuite"
        assert required <= set(suite.attrib) <= required | {"skipped"}
        assert suite.get("id") == str(i)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp", ""))
        assert re.fullmatch(r"\d+(\.\d+)?", suite.get("time", ""))
        cases = suite.findall("testcase")
        order = ["properties", *["testcase"] * len(cases), "system-out", "system-err"]
        assert [child.tag for child in suite] == order
        assert all(set(p.attrib) == {"name", "value"} and p.get("name") for p in suite[0])
        for case in cases:
            assert set(case.attrib) == {"classname", "name", "time"}
            assert case.get("name")
            assert case.get("name") == " ".join(case.get("name", "").split()), "a token"
            assert len(case) <= 1
            for child in case:
                assert child.tag in ("failure", "error")
                assert set(child.attrib) == {"type", "message"}
        assert int(suite.get("tests", "")) == len(cases) > 0
        assert int(suite.get("failures", "")) == len(suite.findall("testcase/failure"))
        assert int(suite.get("errors", "")) == len(suite.findall("testcase/error"))
    return list(root)


def test_a_case_for_every_gate_and_failed_input() -> None:
    report = made(
        gates=[Gate("a<1", True, 2.0, 1, 0, {"model": "m"}), Gate("b>1", False, None, reason="there is none")],
        failures=[Failure("x.png", "decode", "x.png: truncated"), Failure("y.png", "compute", "NaN", "m", "sg:n=2", 3)],
    )
    (suite,) = checked_junit(to_junit(report))
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == ["a<1", "b>1", "x.png", "y.png, m, sg:n=2, class 3"]
    assert [[child.tag for child in case] for case in cases] == [[], ["failure"], ["error"], ["error"]]
    assert cases[1][0].get("message") == cases[1][0].text == "b>1: no value: there is none"
    assert cases[3][0].get("type") == "compute"


@pytest.mark.parametrize(("interrupted", "error"), [(False, []), (True, ["error"])])
def test_a_run_without_gates_and_failures_is_one_case(interrupted: bool, error: list[str]) -> None:
    (suite,) = checked_junit(to_junit(made(interrupted=interrupted)))
    (case,) = suite.findall("testcase")
    assert case.get("name") == "run"
    assert [child.tag for child in case] == error


def hostile(**more: Any) -> Report:
    """Names and messages of every evil kind in every place that takes text from outside."""
    return made(
        failures=[Failure(name, name, f"{name}: {name}", name, name, 0) for name in HOSTILE],
        gates=[Gate(name, False, None, 2, 1, {"model": name, "to": name}, name) for name in HOSTILE],
        aggregates=[row(name, None, None, model=name, expression=name, to=name) for name in HOSTILE],
        comparisons=[
            Comparison(name, {"model": name}, {"method": name}, 0.1, (0.0, 0.2), 1.0, 0.1, 0.1, 6, 0.1)
            for name in HOSTILE
        ],
        **more,
    )


def test_hostile_names_make_sound_xml() -> None:
    (suite,) = checked_junit(to_junit(hostile()))
    cases = suite.findall("testcase")
    assert len(cases) == 2 * len(HOSTILE)
    for case, name in zip(cases, HOSTILE, strict=False):
        assert case.get("name") == (one_line(name) or "?")
        assert all(c.isprintable() for c in case.get("name", ""))


# -- Markdown ----------------------------------------------------------------------------------------------------------


def cells(text: str) -> list[list[str]]:
    """The text of every cell of every table as a reader of Markdown shows it, a list for a row; anything else that it
    makes of a row but <code> fails."""
    out: list[list[str]] = []
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    inside = False
    for token in tokens:
        if token.type == "tr_open":
            out.append([])
        inside = inside or token.type in ("th_open", "td_open")
        if token.type in ("th_close", "td_close"):
            inside = False
        if token.type == "inline" and inside:
            seen = ""
            for child in token.children or []:
                assert child.type in ("text", "html_inline", "text_special"), (child.type, token.content)
                if child.type == "html_inline":
                    assert child.content in ("<code>", "</code>"), child.content
                else:
                    seen += child.content
            out[-1].append(seen)
    return out


def test_markdown_shows_the_four_tables() -> None:
    report = made(
        gates=[Gate("ssim<0.5", False, 0.2, 3, 2, {"model": "m", "expression": "sg:n=2"})],
        aggregates=[row("ssim", 0.25, (0.1, 0.4)), row("gini", None)],
        comparisons=[Comparison("ssim", {"model": "a"}, {"model": "b"}, 0.2, (0.1, 0.3), 1.1, 0.01, 0.03, 40, 0.06)],
        failures=[Failure("x|y.png", "decode", "x|y.png: truncated")],
    )
    rows = cells(to_markdown(report))
    assert ["❌ failed", "ssim<0.5", "0.2 (2 of 3 rows fail; the worst: m, sg:n=2)"] in rows
    assert ["ssim", "m, sg:n=2", "0.25", "0.1", "0.1 to 0.4", "8", "0"] in rows
    assert ["gini", "m, sg:n=2", "-", "0.1", "-", "8", "0: nothing there"] in rows
    assert ["ssim", "a", "b", "0.2", "0.1 to 0.3", "1.1", "0.03", "40"] in rows
    assert ["x|y.png", "decode", "x|y.png: truncated"] in rows
    assert "## attrsens score: 1 of 1 gates failed, 1 failure\n" in to_markdown(report)


def test_an_empty_report_is_a_heading_and_a_line() -> None:
    text = to_markdown(made())
    assert "## attrsens score: done" in text
    assert "0 maps of 0 images" in text
    assert "|" not in text
    assert "## attrsens score: interrupted\n" in to_markdown(made(interrupted=True))


def test_hostile_names_are_text_in_markdown() -> None:
    text = to_markdown(hostile())
    rows = cells(text)
    assert len(rows) == 4 * (1 + len(HOSTILE)), "a name broke a table"
    lengths = {3, 7, 8}
    assert {len(r) for r in rows} == lengths
    shown = [r[0] for r in rows if len(r) == 7][1:]
    assert shown == [one_line(name, 300) for name in HOSTILE]
    for line in text.splitlines():
        assert all(c.isprintable() for c in line)
    for trap in ("@someone", "<script", "https://", "www.", "`", "$x", "](", "~~"):
        assert trap not in text, trap


@pytest.mark.parametrize("name", HOSTILE)
def test_escaping_loses_nothing(name: str) -> None:
    assert html.unescape(escaped(name, 10_000)) == one_line(name, 10_000)


def test_ten_thousand_failures_fit() -> None:
    name = "<&|" * 200
    many = [Failure(f"{i} {name}", "decode", name, name, name, i) for i in range(10_000)]
    rows = [row(f"{i} {name}", 0.5, model=name) for i in range(10_000)]
    outcomes = [Gate(f"{i}<1", False, 0.5, 1, 1, {"model": name}) for i in range(10_000)]
    report = made(failures=many, aggregates=rows, gates=outcomes)
    text = to_markdown(report)
    assert 400_000 < len(text.encode()) < 900 * 1024
    (left,) = re.findall(r"### Failures.*\n(\d+) more in report.json", text, re.DOTALL)
    shown = len(re.findall(r"^\| <code>\d+ .*\| decode \|", text, re.MULTILINE))
    assert shown + int(left) == 10_000
    lines = annotation_lines(report)
    assert len(lines) == 10
    assert command(lines[-1]) == ("error", {"title": "attrsens"}, "19991 further failures; see report.json")
    assert len(checked_junit(to_junit(report))[0].findall("testcase")) == 20_000


def test_a_summary_that_is_full_gets_the_heading(tmp_path: Path) -> None:
    path, report = tmp_path / "summary.md", made(gates=[Gate("ssim<1", True, 2.0)])
    append_summary(path, report)
    assert path.read_text() == f"\n{to_markdown(report)}\n"
    path.write_text("x" * 999_900)
    append_summary(path, report)
    assert path.read_text().endswith("x\n## attrsens score: the gate passed\n\n")


# -- GitHub ------------------------------------------------------------------------------------------------------------


def command(line: str) -> tuple[str, dict[str, str], str] | None:
    """What GitHub's runner makes of a line of a log, in Python: name, properties, text; None if it is no command."""

    def plain(text: str, *also: tuple[str, str]) -> str:
        for token, code in (("\r", "%0D"), ("\n", "%0A"), *also, ("%", "%25")):
            text = text.replace(code, token)
        return text

    line = line.lstrip()
    end = line.find("::", 2)
    if not line.startswith("::") or end < 0:
        return None
    name, _, rest = line[2:end].partition(" ")
    if name not in ("error", "warning", "notice", "add-mask", "stop-commands", "group"):
        return None
    pairs = [p.split("=", 1) for p in rest.strip().split(",") if p]
    properties = {p[0]: plain(p[1], (":", "%3A"), (",", "%2C")) for p in pairs if len(p) == 2}
    return name, properties, plain(line[end + 2 :])


def test_annotations_say_the_same_after_githubs_reading() -> None:
    report = made(
        gates=[Gate("a: b, c<1", False, 0.5, 1, 1, {"model": "50%"}), Gate("d<1", True, 2.0)],
        failures=[
            Failure("a,b: 100%0A.png", "decode", "a,b: 100%0A.png: truncated"),
            Failure("c.png", "compute", "NaN"),
        ],
    )
    assert [command(line) for line in annotation_lines(report)] == [
        ("error", {"title": "attrsens gate failed"}, "a: b, c<1: 0.5 (1 row; 50%)"),
        ("error", {"file": "a,b: 100%0A.png", "title": "attrsens decode failed"}, "a,b: 100%0A.png: truncated"),
        ("error", {"file": "c.png", "title": "attrsens compute failed"}, "c.png: NaN"),
    ]
    assert annotation_lines(made()) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_in_their_annotation(name: str) -> None:
    (line,) = annotation_lines(made(failures=[Failure(name, "decode", name)]))
    assert "\n" not in line
    assert "\r" not in line
    found = command(line)
    assert found
    assert found[0] == "error"
    assert set(found[1]) <= {"file", "title"}
    assert found[1].get("file", "") == one_line(name)
    assert found[2] == one_line(name, 1000)


# -- the documented job ------------------------------------------------------------------------------------------------

DOC = (Path(__file__).parent.parent / "docs" / "ci.md").read_text(encoding="utf-8")


def job() -> list[dict[str, Any]]:
    (text,) = re.findall(r"```yaml\n(.*?)```", DOC, re.DOTALL)
    data = yaml.safe_load(text)
    assert set(data) == {"name", True, "permissions", "jobs"}, "a bare `on` is YAML 1.1's true"
    (only,) = data["jobs"].values()
    assert only["runs-on"]
    assert all(("uses" in step) != ("run" in step) for step in only["steps"])
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in only["steps"] if "uses" in step)
    return list(only["steps"])


def test_the_documented_job_runs_as_it_stands(run_cli, tmp_path: Path, monkeypatch) -> None:
    """Its command, word by word as a shell would split it, in an empty folder; then what it uploads is there."""
    steps = job()
    (words,) = [shlex.split(step["run"]) for step in steps if step.get("run", "").startswith("attrsens ")]
    assert "\n" not in next(s["run"] for s in steps if s.get("run", "").startswith("attrsens ")).strip()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    code, _, stderr = run_cli(*words[1:])
    assert code == 0, stderr
    (upload,) = [step["with"]["path"] for step in steps if "upload-artifact" in step.get("uses", "")]
    assert {"junit.xml", "report.json", "report.md"} <= {p.name for p in (tmp_path / upload).iterdir()}
    assert "all 2 gates passed" in (tmp_path / "summary.md").read_text()
    assert [g["passed"] for g in json.loads((tmp_path / upload / "report.json").read_bytes())["gates"]] == [True, True]


def test_every_gate_in_the_docs_is_a_condition() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"--fail-if '([^']*)'", DOC + readme)
    assert len(found) > 5
    assert parse_gates(found)

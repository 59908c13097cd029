"""docs/metrics.md is what docs/metrics.py writes: true values, ours, and the libraries' where these are installed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from attrsens.spec import SCORES, SIMILARITIES

DOCS = Path(__file__).parent.parent / "docs"
LIBRARIES = all(find_spec(name) for name in ("captum", "quantus"))
COLUMNS = {"metric": 0, "fixture": 1, "true": 2, "ours": 3, "captum": 4, "quantus": 5, "paper": 6, "verdict": 7}
NUMBER = r"-?\d+(?:\.\d+)?"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    sys.path.insert(0, str(DOCS))
    try:
        import metrics

        yield metrics
    finally:
        sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def cells(script: ModuleType) -> list[list[str]]:
    return script.table(others=LIBRARIES)


@pytest.fixture(scope="module")
def written() -> str:
    return (DOCS / "metrics.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def lines(written: str) -> list[list[str]]:
    """The cells of the comparison as they are written."""
    table = re.findall(r"^\| (`.*) \|$", written.partition("## Scores")[0], re.MULTILINE)
    return [re.split(r"(?<!\\) \| ", line) for line in table]


def same(a: str, b: str) -> bool:
    """Equal but for the sixth digit of a number."""
    numbers = [[float(n) for n in re.findall(NUMBER, text)] for text in (a, b)]
    return re.sub(NUMBER, "", a) == re.sub(NUMBER, "", b) and numbers[0] == pytest.approx(numbers[1], abs=3e-6)


@pytest.mark.parametrize("column", COLUMNS)
def test_the_comparison_is_not_stale(cells: list[list[str]], lines: list[list[str]], column: str) -> None:
    if not LIBRARIES and column in ("captum", "quantus", "verdict"):
        pytest.skip("captum and quantus are not installed")
    at = COLUMNS[column]
    assert len(lines) == len(cells), "run python docs/metrics.py"
    for found, line in zip(cells, lines, strict=True):
        assert same(found[at], line[at]), f"{found[0]}: {found[at]!r} now, {line[at]!r} in docs/metrics.md"


def test_the_registry_part_is_not_stale(script: ModuleType, written: str) -> None:
    assert written.endswith(f"\n{script.reference()}"), "run python docs/metrics.py"
    assert written.startswith(script.INTRODUCTION)


def test_attrsens_says_what_is_true(script: ModuleType) -> None:
    for row in script.rows():
        assert row.ours() == pytest.approx(row.true, abs=row.tolerance), row.metric


def test_every_metric_has_an_anchor_and_a_fixture_or_is_listed_without_one(script: ModuleType, written: str) -> None:
    names = [*SCORES, *SIMILARITIES]
    compared = {row.name for row in script.rows()}
    for name in names:
        assert f"\n### {name}\n" in written
        assert (name in compared) != (f"[{name}](#{name})" in written)


def test_a_new_metric_needs_no_fixture(script: ModuleType) -> None:
    facts = {"formula": "1", "direction": "none", "range": (0, None), "source": "here", "cost": "none"}

    @SCORES("toy_score", version=1, judges="none", **facts)
    def toy(case: object) -> float:
        """One."""
        return 1.0

    try:
        assert "toy_score" in script.unknown()
        assert "No closed form here: [" in script.comparison([])
        assert "### toy_score\n\nOne.\n\n    1\n" in script.reference()
    finally:
        SCORES.remove("toy_score")


@pytest.mark.parametrize(("value", "differs"), [(1.5, ""), (1.0, "a reason that no longer holds")])
def test_a_difference_has_a_reason_and_an_agreement_none(script: ModuleType, value: float, differs: str) -> None:
    from _scenes import Other, Row

    row = Row(
        "gini", "a fixture", 1.0, "it is", lambda: 1.0, Other("", lambda: 1.0), Other("f", lambda: value, differs)
    )
    with pytest.raises(SystemExit, match=r"gini, a fixture: Captum says 1\.[05] for 1\.0"):
        script.line(row)


def test_a_wrong_score_stops_the_page(script: ModuleType) -> None:
    from _scenes import Other, Row

    row = Row("gini", "a fixture", 1.0, "it is", lambda: 1.01, Other("", lambda: 1.0))
    with pytest.raises(SystemExit, match=r"1\.01 instead of 1\.0"):
        script.line(row)

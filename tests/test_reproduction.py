"""docs/reproduction: numbers are read, judged and printed as the page says."""

import json
from pathlib import Path

import numpy as np
import pytest

from attrsens.engine.presets import presets

DOCS = Path(__file__).parents[1] / "docs"


def numbers(values, net="a"):
    return {net: {str(i): v for i, v in enumerate(values)}}


def draws(seed, shape, mean=0.0, sd=1.0):
    return np.random.Generator(np.random.Philox(seed)).normal(mean, sd, shape)


def test_a_difference_is_of_the_images_that_both_have(part):
    found = part("estimates").difference(
        numbers([5.0, 6, 7, 8, 9, 10, None]), numbers([1.0, 1, 2, 2, 3, 3, 9], net="b")
    )
    assert found.value == pytest.approx(5.5)
    assert (found.n, found.a, found.b) == (6, 7.5, 2.0)
    assert found.ci95[0] < 5.5 < found.ci95[1]


def test_seeds_widen_an_interval_to_what_another_seed_does(part):
    estimates = part("estimates")
    noise = draws(1, 100, sd=0.01)
    shifts = (-1.0, 0.0, 1.0)
    a = {f"a{i}": dict(enumerate(1 + shift + noise)) for i, shift in enumerate(shifts)}
    b = {f"b{i}": dict(enumerate(shift + noise)) for i, shift in enumerate(shifts)}
    one = estimates.difference({"a1": a["a1"]}, {"b1": b["b1"]})
    three = estimates.difference(a, b)
    assert one.value == pytest.approx(three.value) == pytest.approx(1)
    assert three.nets == (3, 3)
    assert three.ci95[0] < 0 < three.ci95[1]
    alike = estimates.difference(dict.fromkeys(a, a["a1"]), {k: b["b1"] | {0: 0.5} for k in b})
    assert alike.ci95[0] > 0.9


def test_a_ratio_holds_the_ratios_that_its_data_allow(part):
    estimates = part("estimates")
    b = draws(2, 60, 1.0, 0.2)
    found = estimates.ratio(numbers(3 * b + draws(3, 60, 0, 0.3)), numbers(b, net="b"))
    assert found.ci95[0] < 3 < found.ci95[1]
    assert found.ci95[1] - found.ci95[0] < 0.4
    exact = estimates.difference(numbers(3 * b), numbers(found.ci95[1] * b, net="b"))
    assert exact.value < 0


def test_a_ratio_without_bounds_gives_way_to_the_difference(part):
    estimates = part("estimates")
    a, b = numbers(draws(2, 60, 1.0, 0.2)), numbers(draws(4, 60), net="b")
    found = estimates.ratio(a, b)
    gap = estimates.difference(a, b)
    assert (found.kind, found.value, found.ci95) == (estimates.INSTEAD, gap.value, gap.ci95)
    assert estimates.verdict(found, 3.0, None) == "in direction"
    assert estimates.verdict(found, 0.3, None) == "does not hold"


def test_contrasts_within_the_same_nets_are_paired_net_by_net(part):
    estimates = part("estimates")
    noise = draws(1, 60, sd=0.01)
    shifts = {"a": -1.0, "b": 0.0, "c": 1.0}
    after = {net: dict(enumerate(shift + 0.04 + noise)) for net, shift in shifts.items()}
    before = {net: dict(enumerate(shift + 0.1 * noise)) for net, shift in shifts.items()}
    found = estimates.difference(after, before)
    assert found.value == pytest.approx(0.04 + 0.9 * noise.mean())
    assert 0.03 < found.ci95[0] < found.ci95[1] < 0.05
    assert (found.a, found.b) == (pytest.approx(0.04 + noise.mean()), pytest.approx(0.1 * noise.mean()))
    opposed = {net: dict(enumerate(shift * 2 + 0.04 + noise)) for net, shift in shifts.items()}
    assert estimates.difference(opposed, before).ci95[0] < 0


def test_equal_numbers_have_an_interval_without_width(part):
    estimates = part("estimates")
    same = numbers([0.5, 0.25, 1.5, 2, 3, 4])
    found = estimates.difference(same, {"b": same["a"]})
    assert found.ci95 == (0, 0)
    assert estimates.verdict(found, None, None, 0.01) == "in direction"
    assert estimates.level(numbers([1.0] * 6)).ci95 == (1, 1)
    assert estimates.level(numbers([1.0] * 5)).ci95 is None


def test_a_correlation_is_pearsons(part):
    x = draws(5, 60)
    y = x + draws(6, 60)
    found = part("estimates").correlation(numbers(x), numbers(y))
    assert found.value == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert 0 < found.ci95[0] < found.value < found.ci95[1] < 1
    assert part("estimates").correlation(numbers(x[:5]), numbers(y[:5])).ci95 is None


@pytest.mark.parametrize(
    ("kind", "ci95", "effect", "direction", "margin", "word"),
    [
        ("difference", (0.1, 0.3), 0.2, None, None, "holds"),
        ("difference", (0.1, 0.3), 0.5, None, None, "in direction"),
        ("difference", (0.1, 0.3), None, 1, None, "in direction"),
        ("difference", (0.1, 0.3), None, -1, None, "does not hold"),
        ("difference", (-0.3, -0.1), 0.2, None, None, "does not hold"),
        ("difference", (-0.1, 0.3), 0.4, None, None, "inconclusive"),
        ("difference", (-0.1, 0.1), 0.4, None, None, "does not hold"),
        ("difference", (-0.2, 0.02), None, None, 0.05, "in direction"),
        ("difference", (-0.2, 0.2), None, None, 0.05, "inconclusive"),
        ("difference", (0.06, 0.2), None, None, 0.05, "does not hold"),
        ("ratio", (1.1, 5.2), 5.0, None, None, "holds"),
        ("ratio", (0.4, 0.9), 5.0, None, None, "does not hold"),
        ("ratio", (0.9, 1.4), 1.1, None, None, "inconclusive"),
        ("difference", None, 5.0, None, None, "cannot be tested here"),
    ],
)
def test_verdicts_follow_the_rules_fixed_beforehand(part, kind, ci95, effect, direction, margin, word):
    estimates = part("estimates")
    null = 1.0 if kind == "ratio" else 0.0
    found = estimates.Estimate(kind, None if ci95 is None else ci95[0], ci95, 50, (1, 1), null)
    assert estimates.verdict(found, effect, direction, margin) == word
    assert estimates.Estimate.of(json.loads(json.dumps(found.data()))) == found


@pytest.mark.parametrize(
    ("ci95", "word"),
    [
        ((-0.04, 0.04), "in direction"),
        ((0.01, 0.2), "inconclusive"),
        ((0.06, 0.2), "does not hold"),
        ((-0.2, -0.06), "does not hold"),
        ((-0.2, 0.2), "inconclusive"),
    ],
)
def test_a_claim_of_equality_has_two_sides(part, ci95, word):
    estimates = part("estimates")
    found = estimates.Estimate("mean", 1 + ci95[0], (1 + ci95[0], 1 + ci95[1]), 50, (1, 0), 1.0)
    assert estimates.verdict(found, None, None, within=0.05) == word


def test_rows_are_found_by_what_tells_them_apart(part, run_cli, tmp_path):
    code, _, _ = run_cli(
        *("sweep", "sample:coffee", "--method", "sg:n=2", "--param", "n", "--values", "1,2,4", "--reference", "2"),
        *("--metrics", "gini,l1", "--no-calibrate", "--out", str(tmp_path)),
    )
    assert code == 0
    table = part("reading").Table.read(tmp_path / "report.json")
    by_n = table.settings("gini", ["lite0"], "n")
    assert list(by_n) == [1, 2, 4]
    report = json.loads((tmp_path / "report.json").read_bytes())
    for record in report["records"]:
        n = record["method"]["parameters"]["n"]
        (value,) = by_n[n]["lite0"].values()
        assert value == next(s["value"] for name, s in record["scores"].items() if name.startswith("gini"))
    (to_reference,) = table("l1", ["lite0"], n=4, role="reference")["lite0"].values()
    assert to_reference > 0
    with pytest.raises(LookupError, match="0 rows"):
        table("gini", ["lite0"], n=3)
    with pytest.raises(LookupError, match="3 rows"):
        table("gini", ["lite0"])


def test_the_page_is_that_of_the_kept_numbers(part):
    studies = part("studies")
    text = part("page").page(studies.STUDIES.values(), studies.results(), studies.FIGURES)
    assert (DOCS / "reproduction.md").read_text(encoding="utf-8") == text


def test_the_readme_has_the_short_table(part):
    studies = part("studies")
    text = part("page").short(studies.STUDIES, studies.results())
    assert text in (DOCS.parent / "README.md").read_text(encoding="utf-8")


def test_kept_numbers_are_of_the_claims_and_commands_that_are_declared(part):
    studies = part("studies")
    for name, kept in studies.results().items():
        study = studies.STUDIES[name]
        assert {k: run["command"] for k, run in kept["runs"].items()} == {k: r.command for k, r in study.runs.items()}
        for claim in study.claims:
            assert list(kept["claims"].get(claim.key, {})) == list(claim.evidence), (name, claim.key)


def test_every_preset_has_a_study_or_a_reason(part):
    studies = part("studies")
    words = {word for s in studies.STUDIES.values() for run in s.runs.values() for word in run.command.split()}
    named = {preset.name for preset in presets()}
    covered = named & (words | set(studies.STUDIES))
    assert set(studies.FIGURES) == named - covered

"""Pictures and words of a sweep: what each plot is drawn of, file names, stability maps, printed verdicts."""

from __future__ import annotations

import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_api import picture
from test_compare import twin
from toys import small

import attrsens
from attrsens.cli.sweep import _show
from attrsens.engine.knobs.ranks import RankStability, SpecificationCurve
from attrsens.engine.knobs.results import KnobEffect, KnobVerdict, MethodRank, SeedEffect
from attrsens.engine.report import Report, Swept
from attrsens.engine.sweep.tables import FLOOR, MEAN, NEIGHBOUR, RESCALED
from attrsens.render.markdown import labels, to_markdown
from attrsens.render.plots import Chart, _some, charts, plots
from attrsens.render.sweep import disagreement, setting, strips

FREE: dict[str, Any] = {"cache": False, "metrics": "cosine,gini"}
IMAGES = [picture(i) for i in range(2)]


@pytest.fixture(scope="module")
def grid() -> Report:
    """Two knobs, two models of one name."""
    models = [twin(name="same"), twin(0.4, name="same")]
    knobs: dict[str, Any] = {"param": ["n", "spread"], "values": ["2,4", "0.1,0.2,0.4"], "reference": ["2", "0.2"]}
    return attrsens.sweep(IMAGES, model=models, method="sg", target=["0", "1"], **knobs, **FREE)


@pytest.fixture(scope="module")
def apart() -> Report:
    """Every knob of one method, and one of another, with two draws of each setting."""
    methods = ["sg:n=4,spread=0.3", "sg:n=8,spread=0.3", "grad+smooth:n=2"]
    return attrsens.sweep(IMAGES, model=small(), method=methods, param="all", **FREE)


@pytest.fixture(scope="module")
def two() -> Report:
    """One knob of two values, of two calls of one method."""
    given: dict[str, Any] = {"param": "spread", "values": "0.1,0.2", "reference": "0.2"}
    return attrsens.sweep(IMAGES, model=small(), method=["sg:n=4", "sg:n=8"], replicates=2, **given, **FREE)


def drawn(report: Report) -> dict[tuple[str, str, str], Chart]:
    return {(c.quantity, c.title, c.knob): c for c in charts(report)}


# -- plots -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grid", "apart", "two"])
def test_single_images_are_those_of_the_row_beside_them(name: str, request: pytest.FixtureRequest) -> None:
    report: Report = request.getfixturevalue(name)
    found, counted = list(charts(report)), 0
    said = labels(report)
    for row in report.aggregates:
        if "parameters" not in row.group or row.quantity.endswith((MEAN, NEIGHBOUR, FLOOR, RESCALED)):
            continue
        start = report.config["reference"][row.group["base"]]
        values = start | row.group["parameters"]
        moved = [k for k in start if values[k] != start[k]]
        for chart in found:
            if (chart.quantity, chart.title) == (row.quantity, said[row.group["base"]]) and set(moved) <= {chart.knob}:
                single = chart.singles[row.group["model"], values[chart.knob]]
                assert len(single) == row.n
                assert np.mean(single) == pytest.approx(row.mean)
                counted += 1
    assert counted >= 6
    for chart in found:
        if chart.quantity == "cosine":  # the reference is not held against itself
            assert all(not v for (_, value), v in chart.singles.items() if value == chart.start[chart.knob])


def test_a_grid_has_a_line_for_each_value_of_the_other_knob(grid: Report) -> None:
    found = drawn(grid)
    assert set(found) == {(q, "sg", k) for q in ("cosine", "gini") for k in ("n", "spread")}
    ids = {m.group["model"] for m in grid.aggregates}
    over_n, over_spread = found["cosine", "sg", "n"], found["cosine", "sg", "spread"]
    assert {(x.model, x.others["spread"], x.usual) for x in over_n.lines} == {
        (m, s, s == 0.2) for m in ids for s in (0.1, 0.2, 0.4)
    }
    assert [x.others["spread"] for x in over_n.lines if x.model == min(ids)] == [0.1, 0.2, 0.4]
    assert {tuple(x.rows) for x in over_n.lines if x.usual} == {(4,)}  # the reference is a gap
    assert {tuple(x.rows) for x in over_spread.lines if x.usual} == {(0.1, 0.4)}
    assert {tuple(x.rows) for x in over_spread.lines if not x.usual} == {(0.1, 0.2, 0.4)}
    assert {tuple(x.rows) for x in found["gini", "sg", "spread"].lines} == {(0.1, 0.2, 0.4)}
    assert over_spread.order == [0.1, 0.2, 0.4]


def test_of_many_lines_the_slice_at_the_reference_is_drawn() -> None:
    values = ",".join(f"{k}" for k in range(2, 9))
    given: dict[str, Any] = {"param": ["spread", "n"], "values": ["0.1,0.2", values]}
    report = attrsens.sweep(IMAGES[0], model=small(), method="sg", **given, **FREE)
    assert [line.usual for line in drawn(report)["gini", "sg", "spread"].lines] == [True]
    assert len(drawn(report)["gini", "sg", "n"].lines) == 2


def test_a_knob_of_two_values_is_drawn_with_a_gap_at_its_reference(two: Report) -> None:
    chart = drawn(two)["cosine", "sg:n=4", "spread"]
    assert chart.order == [0.1, 0.2]
    assert [list(line.rows) for line in chart.lines] == [[0.1]]


def test_one_knob_at_a_time_has_one_line_a_knob(apart: Report) -> None:
    found = drawn(apart)
    assert {k for _, title, k in found if title == "sg:n=4,spread=0.3"} >= {"n", "spread"}
    for chart in found.values():
        assert [line.usual for line in chart.lines] == [True]
        assert len(chart.order) > 1


def test_pictures_of_one_title_have_names_of_their_own(two: Report) -> None:
    found = list(plots(two))
    names = [name for name, _ in found]
    assert names == [
        "sweep-gini-sg-spread",
        "sweep-gini-sg-2-spread",
        "sweep-cosine-sg-spread",
        "sweep-cosine-sg-2-spread",
    ]
    assert len({data for _, data in found}) == len(found)
    for _, data in found:
        with Image.open(BytesIO(data)) as image:
            assert image.width > image.height


def test_what_has_no_settings_has_no_plots(capsys: Any) -> None:
    report = attrsens.sweep(IMAGES, model=small(), method="sg", until="cosine=0.5", most=8, cache=False)
    assert list(plots(report)) == []
    _show(report, Path())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.endswith("  sg")]
    assert len(lines) == 3  # draws, goal reached, cosine
    fill: dict[str, Any] = {"param": "deletion.fill", "values": "mean,black"}
    judged = attrsens.sweep(IMAGES, model=small(), method=["grad", "gi"], cache=False, **fill)
    assert list(plots(judged)) == []


def test_names_that_differ_in_case_or_punctuation_alone_are_told_apart(two: Report) -> None:
    rows = [replace(r, quantity=q) for r in two.aggregates if r.quantity == "gini" for q in ("a:b", "a=b", "A-b")]
    effects = [e for e in two.effects if e.kind != "knob_effect"]
    names = [name for name, _ in plots(replace(two, aggregates=rows, effects=effects))]
    assert len(names) == 6
    assert len({name.lower() for name in names}) == 6


def test_methods_are_told_apart_by_what_is_not_swept(two: Report, apart: Report) -> None:
    assert list(labels(two).values()) == ["sg:n=4", "sg:n=8"]
    assert list(labels(apart).values()) == ["sg:n=4,spread=0.3", "sg:n=8,spread=0.3", "grad+smooth"]


def test_a_distribution_of_many_values_keeps_ends_and_reference() -> None:
    assert _some([1, 2, 3], 2) == [1, 2, 3]
    for start in range(40):
        kept = _some(list(range(40)), start)
        assert len(kept) <= 12
        assert {0, 39, start} <= set(kept)
        assert kept == sorted(kept)


# -- montage and stability ---------------------------------------------------------------------------------------------


def group(maps: list[Any], reference: int = 0) -> list[Any]:
    """Settings of one image with given maps."""
    report = attrsens.explain(IMAGES[0], model=small(), method="sg:n=2", cache=False)
    record = report.records[0]
    out = []
    for i, values in enumerate(maps):
        attribution = replace(report.attributions[0], map=np.asarray(values, np.float32))
        out.append((Swept(0, {"n": i + 2}, 0, i == reference, True), (record, attribution)))
    return out


def test_disagreement_is_the_sd_over_settings_of_maps_by_their_largest_magnitude() -> None:
    a, b, c = [[2.0, -4.0], [0.0, 1.0]], [[3.0, 3.0], [0.0, -1.5]], [[-5.0, 0.0], [0.0, 10.0]]
    unit = [[[0.5, -1.0], [0.0, 0.25]], [[1.0, 1.0], [0.0, -0.5]], [[-0.5, 0.0], [0.0, 1.0]]]
    found = disagreement(group([a, b, c]))
    assert found is not None
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.std(unit, axis=0), rtol=1e-6)
    by_hand = [[(7 / 18) ** 0.5, (2 / 3) ** 0.5], [0.0, (3 / 8) ** 0.5]]  # 7/18: of 0.5, 1, -0.5
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)
    one = disagreement(group([[[1.0, 2.0]], [[2.0, 2.0]]]))
    np.testing.assert_array_equal(one, np.float32([[0.25, 0.0]]))


def test_maps_that_are_multiples_of_each_other_do_not_disagree() -> None:
    heatmap = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
    found = disagreement(group([heatmap] * 7))
    np.testing.assert_array_equal(found, np.zeros((5, 5), np.float32))
    np.testing.assert_array_equal(disagreement(group([heatmap, heatmap * 4])), np.zeros((5, 5), np.float32))
    np.testing.assert_array_equal(disagreement(group([[[0.0]], [[0.0]]])), [[0.0]])  # zero maps stay zero


def test_one_map_or_two_shapes_have_no_disagreement() -> None:
    assert disagreement(group([[[1.0]]])) is None
    assert disagreement(group([[[1.0]], [[1.0, 2.0]]])) is None


def test_strips_of_many_settings_go_on_below_and_star_the_reference() -> None:
    rows = strips(group([np.full((4, 4), k + 1.0) for k in range(12)], reference=3))
    assert [len(row.panels) for row in rows] == [10, 4]  # input, 12 settings, where they disagree
    assert rows[1].title == f"{rows[0].title} (continued)"
    assert rows[0].title.endswith("sg:n=2")
    texts = [lines[0] for row in rows for _, lines in row.panels]
    assert [t for t in texts if t.endswith("*")] == ["n=5 *"]
    assert texts[1:13] == [f"n={k + 2}{' *' if k == 3 else ''}" for k in range(12)]
    assert texts[13] == "sd over settings"
    assert {lines[1] for row in rows for _, lines in row.panels[:-1] if lines[0][:2] == "n="} == {"12"}  # one scale


def test_a_setting_in_words() -> None:
    assert (
        setting(Swept(0, {"n": 4, "quantize": True, "fill": "mean"}, 0, False, True)) == "n=4, quantize=true, fill=mean"
    )
    assert setting(Swept(0, {}, 0, True, True)) == "reference"


def test_stability_maps_of_two_sweeps_do_not_overwrite_each_other(tmp_path: Path, run_cli: Any) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    command = ["sweep", tmp_path / "a.png", "--method", "grad", "--method", "gi", "--param", "reduce", "-q"]
    code, _, err = run_cli(*command, "--values", "mean,sum", "--out", tmp_path / "out", "--metrics", "cosine")
    assert code == 0, err
    assert len(list((tmp_path / "out" / "heatmaps").glob("*.stability*.png"))) == 2


# -- words -------------------------------------------------------------------------------------------------------------


def effect(knob: str, value: float | None, where: dict[str, Any], reason: str | None = None) -> KnobEffect:
    ends = (value / 2, value * 2) if value is not None else None
    return KnobEffect(
        knob, "ratio", 1, value, ends, None, None, None, None, None, None, None, [], 9, 0, {}, "", reason, where
    )


@pytest.fixture
def told(two: Report) -> Report:
    """With findings of every kind."""
    one, other = two.config["reference"]
    models = "m1", "m2"
    effects: list[Any] = []
    for model in models:
        for base, size in ((one, 0.5), (other, 0.25)):
            where = {"model": model, "method": "sg", "base": base}
            lacking = "not measured: one step up is not bracketed"
            effects += [
                SeedEffect(None, None, 0, 2, {}, reason="no image has two draws", group=where),
                effect("n", size / 2, where),
                effect("spread", size, where),
                effect("beta", size * 0.9, where),
                effect("top", None, where, lacking),
                KnobVerdict("n", "spread", "told", "spread", -size / 2, (-1, -0.1), 0.01, 0.02, n=9, group=where),
                KnobVerdict("spread", "beta", "not separable", n=9, reason="the order turns", group=where),
                KnobVerdict("n", "top", reason="the effect of top is not measured", group=where),
            ]  # fmt: skip
        where = {"model": model}
        effects += [
            MethodRank(one, 1, "spread", 0.5, (0.25, 1.0), 9, group=where),
            MethodRank(other, None, reason="no effect of a knob is measured", group=where),
            replace(
                KnobVerdict(one, other, "told", one, 0.25, (0.1, 0.4), 0.01, 0.03, n=9),
                kind="method_verdict",
                group=where,
            ),
            RankStability("gini", "gini:x=1", 3, 9, 0, 0.75, 0.5, 0.125, (0.1, 0.2), group=where | {"knob": "gini.x"}),
            SpecificationCurve(one, other, 1, 2, 0, 0, "", [], group=where | {"knob": "gini.x"}),
        ]  # fmt: skip
    return replace(two, effects=effects)


def test_effects_are_printed_by_method_and_model_with_all_verdicts(told: Report, capsys: Any) -> None:
    _show(told, Path())
    text = capsys.readouterr().out
    heads = re.findall(r"which knob of (\S+) matters, (m\d)", text)
    assert heads == [("sg:n=4", "m1"), ("sg:n=8", "m1"), ("sg:n=4", "m2"), ("sg:n=8", "m2")]
    block = text[text.index("which knob of sg:n=4") : text.index("which knob of sg:n=8")]
    assert re.findall(r"^ +(0\.\d+) .* (\w+) \(from", block, re.MULTILINE) == [
        ("0.5000", "spread"),
        ("0.4500", "beta"),
        ("0.2500", "n"),
    ]
    assert "seed: no image has two draws" in block
    assert "top: not measured: one step up is not bracketed" in block
    assert "spread matters more than n (p 0.02)" in block
    assert "not separable, the order turns: spread and beta" in block
    assert "not compared, the effect of top is not measured: n and top" in block
    assert "no two of them" not in text


def test_methods_and_conventions_are_printed_by_model(told: Report, capsys: Any) -> None:
    _show(told, Path())
    text = capsys.readouterr().out
    for model in ("m1", "m2"):
        block = text[text.index(f"moves its maps most, {model}") :].partition("\n\n")[0].splitlines()
        assert re.search(r"1\. +0\.5000  95 % 0\.25 to 1 .*sg:n=4, by spread", block[1])
        assert block[2].strip() == "-  sg:n=8: no effect of a knob is measured"
        assert block[3].strip() == "sg:n=4 matters more than sg:n=8 (p 0.03)"
        line = next(line for line in text.splitlines() if f"gini and gini:x=1, {model}" in line)
        assert f"sg:n=4 better than sg:n=8: holds in 1 of 2 conventions of gini.x, {model}" in text
        assert "of means 0.7500, of mean ranks 0.5000, within images 0.1250, 95 % 0.1 to 0.2, n 9" in line


def test_spreads_of_scores_are_one_line_a_model(two: Report, capsys: Any) -> None:
    _show(two, Path())
    lines = [line for line in capsys.readouterr().out.splitlines() if "root mean square" in line]
    assert len(lines) == 2
    sam = next(e for e in two.effects if e.kind == "stability")
    (model,) = sam.n
    assert f"gini over spread of sg:n=4, {model}: {sam.mean_std[model]:.4f}" in lines[0]


def test_the_summary_says_which_knob_matters(told: Report) -> None:
    text = to_markdown(told)
    table = text[text.index("### Which knob matters") : text.index("### What matters more")]
    rows = [line for line in table.splitlines() if line.startswith("| <code>")]
    assert len(rows) == 4 * 5
    assert "| <code>spread</code> | <code>sg:n=4</code> | <code>m1</code> | 0.5 | 0.25 to 1 | 9 |  |" in rows
    assert any("<code>top</code>" in row and "one step up is not bracketed" in row for row in rows)
    more = [line for line in text[text.index("### What matters more") :].splitlines() if line.startswith("| <code>")]
    assert len(more) == 4 + 2  # what is not separable is left out
    assert (
        "| <code>sg:n=4 matters more than sg:n=8</code> | - | <code>m1</code> | 0.25 | 0.1 to 0.4 | 0.03 | 9 |" in more
    )


def test_a_summary_of_many_knobs_fits(told: Report) -> None:
    where = {"model": "m", "method": "sg", "base": next(iter(told.config["reference"]))}
    many = [effect(f"{i} " + "<&|" * 200, 0.5, where) for i in range(10_000)]
    judged = [KnobVerdict("<&|" * 200, "b", "", "b", 0.5, n=i, group=where) for i in range(10_000)]
    text = to_markdown(replace(told, effects=[*many, *judged]))
    assert 250_000 < len(text.encode()) < 900 * 1024
    assert len(re.findall(r"more in report.json", text)) == 2

"""`attrsens sweep`: values, settings and draws, what is shared, similarities and rows, on small networks."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image
from scipy import stats
from test_api import picture
from test_compare import twin
from toys import small

import attrsens
from attrsens.engine.cell import parse_call
from attrsens.engine.plan import plan
from attrsens.engine.prepare_sweep import prepare_sweep
from attrsens.engine.report import Record, Report, json_schema, to_json
from attrsens.engine.sweep.axes import axes_of, parse_values
from attrsens.engine.sweep.design import grid, one_at_a_time, surroundings
from attrsens.engine.sweep.tables import Tables
from attrsens.engine.sweep.until import FEWEST, sizes
from attrsens.errors import AttrsensError
from attrsens.spec import METHODS, SIMILARITIES

FREE = {"cache": False, "metrics": "cosine"}


def study(method: str, *names: str, values: tuple[str, ...] = (), draws: Any = "disjoint", replicates: int = 1) -> Any:
    base = parse_call(method)
    return grid(base, axes_of(base, names, values, ()), draws, replicates)


def spent(report: Report) -> tuple[int, int]:
    """Passes of maps: without the predictions'."""
    p = report.provenance.passes_run
    images = len({(r.image.sha256, r.model.id) for r in report.records})
    return p.forward - images, p.backward


def main(report: Report, **values: Any) -> Record:
    """The record that stands for a setting of the first sweep."""
    return next(r for r in report.records for p in r.swept if p.main and p.values == values)


def to_reference(record: Record) -> float | None:
    return next(s.value for s in record.similarities if s.role == "reference")


# -- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("5,17,29", (5, 17, 29)),
        ("1:4", (1, 2, 3, 4)),
        ("1:10:3", (1, 4, 7, 10)),
        ("8:2:-3", (8, 5, 2)),
        ("log:1:1000:4", (1, 10, 100, 1000)),
        ("2,1:3,2", (2, 1, 3)),
    ],
)
def test_values_of_a_whole_number(text: str, found: tuple[int, ...]) -> None:
    assert parse_values(text, METHODS["sp"].hyper("patch_size"), "sp") == found


def test_values_of_a_fraction_are_what_was_typed() -> None:
    spread = METHODS["sg"].hyper("spread")
    assert parse_values("0.1:0.5:0.1", spread, "sg") == (0.1, 0.2, 0.3, 0.4, 0.5)
    logs = parse_values("log:0.01:1:7", spread, "sg")
    assert logs[0] == 0.01
    assert logs[-1] == 1
    ratios = [float(b) / float(a) for a, b in pairwise(logs)]
    assert ratios == pytest.approx([100 ** (1 / 6)] * 6)


@pytest.mark.parametrize("text", ["1:", "log:0:5:3", "log:1:5", "5:1", "1:2:0", "1,,2", "1:1e9", "a", "log:1:5:1"])
def test_values_that_cannot_be_read_are_one_line(text: str) -> None:
    with pytest.raises(AttrsensError, match="sp"):
        parse_values(text, METHODS["sp"].hyper("patch_size"), "sp")


def test_published_values_and_reference_stand_where_none_are_given() -> None:
    base = parse_call("mp")
    axes = axes_of(base, ("steps", "init", "quantize"), (), ())
    assert [(a.values, a.reference) for a in axes] == [
        ((10, 150, 300, 450), 300),
        (("circle", "ones", "random"), "circle"),
        ((False, True), False),
    ]
    (given,) = axes_of(base, ("steps",), ("10,20",), ())
    assert given.reference == 10  # the published one is not among the values
    (named,) = axes_of(base, ("steps",), ("10,20",), ("20",))
    assert named.reference == 20
    with pytest.raises(AttrsensError, match="none of the values"):
        axes_of(base, ("steps",), ("10,20",), ("300",))
    with pytest.raises(AttrsensError, match="--values"):
        axes_of(parse_call("ig"), ("trials",), (), ())


# -- settings and draws ----------------------------------------------------------------------------------------------


def test_disjoint_draws_give_the_reference_its_own_seed_and_nested_ones_do_not() -> None:
    apart, nested = study("sg:seed=3", "n"), study("sg:seed=3", "n", draws="nested")
    seeds = {p.values["n"]: p.call.parameters["seed"] for p in apart.points}
    assert seeds == {50: 3, 100: 4, 200: 4, 500: 4, 800: 4}
    assert {p.call.parameters["seed"] for p in nested.points} == {3}
    assert apart.points[apart.reference].values == {"n": 50}
    assert study("sp", "patch_size").draws == "the method draws nothing"


def test_replicates_are_seeds_and_the_main_one_differs_from_the_references() -> None:
    s = study("sg", "n", values=("4,8",), replicates=2)
    assert [[c.parameters["seed"] for c in p.calls] for p in s.points] == [[0, 1], [0, 1]]
    assert [p.main for p in s.points] == [0, 1]
    with pytest.raises(AttrsensError, match="seed is swept"):
        study("sg", "seed", replicates=2)


def test_a_grid_has_every_combination_and_neighbours_along_one_knob() -> None:
    s = study("sg", "n", "spread", values=("4,8,16", "0.1,0.2"))
    assert len(s.points) == 6
    assert s.points[s.reference].values == {"n": 4, "spread": 0.2}
    told = {(tuple(s.points[a].values.values()), tuple(s.points[b].values.values())) for a, b in s.neighbours}
    assert told == {
        ((4, 0.1), (8, 0.1)),
        ((8, 0.1), (16, 0.1)),
        ((4, 0.2), (8, 0.2)),
        ((8, 0.2), (16, 0.2)),
        ((4, 0.1), (4, 0.2)),
        ((8, 0.1), (8, 0.2)),
        ((16, 0.1), (16, 0.2)),
    }


def test_knobs_of_wrappers_are_addressed_by_their_owner() -> None:
    s = study("grad+smooth:n=4", "smooth.radius", values=("0.1,0.2",))
    assert [p.call.wrappers[0].parameters["radius"] for p in s.points] == [0.1, 0.2]
    assert s.points[0].call.wrappers[0].parameters["seed"] != s.points[1].call.wrappers[0].parameters["seed"]


def test_the_surroundings_of_a_value_bracket_an_octave() -> None:
    def around(method: str, name: str, start: Any, span: int = 1) -> list[Any]:
        return surroundings(METHODS[method].hyper(name), start, span)[0]

    assert around("sg", "n", 50) == [25, 100]
    assert around("sg", "n", 50, 2) == [12, 13, 25, 100, 200]
    assert around("sp", "stride", 3) == [1, 2, 6]  # 1.5 lies between them
    assert around("sg", "spread", 0.15) == [0.075, 0.3]
    assert around("sg", "n", 1) == [2]  # no copy at all is no octave of anything
    assert around("rise", "keep", 0.5) == pytest.approx([0.401, 0.599])
    assert around("sp", "stride", 1) == [2]  # there is no half of it
    assert around("sp", "fill", "black") == ["white", "grey", "mean"]
    assert around("mp", "quantize", False) == [True]
    assert surroundings(METHODS["mp"].hyper("mask_blur"), 0.0)[1] == "0.0 has no octave"


def test_one_knob_at_a_time_skips_what_cannot_run() -> None:
    s = one_at_a_time(
        parse_call("ig:steps=8"), "disjoint", 1, 1, lambda c: "no picture" if "=image" in c.expression else None
    )
    assert s.points[0].values == {}
    assert {name for p in s.points for name in p.values} == {"steps", "rule", "baseline", "trials", "blur_radius"}
    assert "image" not in [p.values.get("baseline") for p in s.points]
    assert "baseline_image" in s.unmeasured
    assert s.apart


# -- what runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("draws", "passes"), [("nested", 800), ("disjoint", 850)])
def test_smoothgrad_over_n_costs_its_dearest_setting(draws: str, passes: int) -> None:
    report = attrsens.sweep(picture(), model=small(), method="sg", param="n", draws=draws, **FREE)
    assert spent(report) == (passes, passes)
    assert report.provenance.passes_planned == report.provenance.passes_run
    prepared = prepare_sweep(picture(), model=small(), method="sg", param="n", draws=draws, **FREE)
    told = plan(prepared.request, None, prepared.judging)
    assert (told.forward, told.backward) == (passes + 1, passes)
    assert (told.unshared.forward, told.unshared.backward) == (1650, 1650)
    assert told.cells == 5
    assert told.sharing[0].startswith("sg over n: one run gives")


def test_meaningful_perturbation_over_steps_costs_the_longest() -> None:
    report = attrsens.sweep(
        picture(), model=small(), method="mp:init=ones,mask_side=4", param="steps", draws="nested", **FREE
    )
    assert spent(report) == (450, 450)


def test_the_plan_of_an_optimiser_counts_whole_batches() -> None:
    given: dict[str, Any] = {"model": small(), "method": "mp:mask_side=4", "cache": False, "metrics": "cosine"}
    for more in (
        {"param": "steps", "values": "3,9", "draws": "disjoint"},
        {"param": ["blur_radius", "steps"], "values": ["1,2,3", "2,5"], "draws": "nested"},
        {"param": ["init", "steps"], "apart": True, "steps": 4},
    ):
        report = attrsens.sweep([picture(i) for i in range(3)], **given | more)
        assert report.provenance.passes_planned == report.provenance.passes_run


def test_lime_over_its_kernel_costs_no_further_pass() -> None:
    given = {"method": "lime:n=40,segments=4", "param": "kernel_width", "values": "0.1,0.25,0.5", "draws": "nested"}
    assert spent(attrsens.sweep(picture(), model=small(), **given, **FREE)) == (40, 0)


@pytest.mark.parametrize(
    ("method", "param", "values"),
    [
        ("sg", "n", "3,8,20"),
        ("lime:n=40,segments=4", "kernel_width", "0.1,0.5"),
        ("rise:cells=3", "n", "5,20"),
        ("ig", "steps", "4,8,16"),
        ("grad+smooth", "smooth.n", "3,9"),
        ("mp:init=ones,mask_side=4", "steps", "2,5"),
        ("mp:steps=3,init=ones,mask_side=4", "blur_radius", "1,2,3"),
    ],
)
def test_settings_that_share_a_run_are_what_each_is_alone(method: str, param: str, values: str) -> None:
    report = attrsens.sweep(picture(), model=small(), method=method, param=param, values=values, draws="nested", **FREE)
    for record, attribution in zip(report.records, report.attributions, strict=True):
        alone = attrsens.explain(picture(), model=small(), method=record.method.expression, cache=False)
        np.testing.assert_allclose(attribution.map, alone.attributions[0].map, rtol=1e-4, atol=1e-6)
        assert record.passes == alone.records[0].passes  # what the cell costs by itself


def test_a_sweep_that_was_cut_off_ends_with_the_same_bytes(tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": small(), "method": "sg", "param": "n", "values": "3,8,20", "metrics": "cosine"}

    def once(name: str) -> tuple[bytes, Report]:
        report = attrsens.sweep(picture(), cache_dir=tmp_path / name, **given)
        body = json.loads(to_json(report))
        return json.dumps({k: v for k, v in body.items() if k != "provenance"}).encode(), report

    whole, first = once("a")
    assert first.provenance.passes_run.backward == 3 + 20
    again, second = once("a")
    assert (again, second.provenance.passes_run.backward) == (whole, 0)
    stored = sorted((tmp_path / "a").rglob("*.safetensors"))
    for path in stored:
        once("b")
        victim = tmp_path / "b" / path.relative_to(tmp_path / "a")
        victim.unlink()
        resumed, third = once("b")
        assert resumed == whole
        assert third.provenance.passes_run.backward in (0, 3, 20)  # the run that lacks a setting, whole; no other


def test_several_models_and_images_have_rows_for_every_setting() -> None:
    images = [picture(i) for i in range(3)]
    report = attrsens.sweep(
        images, model=[small(), twin()], param="spread", values="0.1,0.2,0.4", n=3, method="sg", **FREE
    )
    assert len(report.records) == 3 * 2 * 3
    rows = [r for r in report.aggregates if r.quantity == "cosine"]
    assert sorted((r.group["model"], r.group["parameters"]["spread"], r.n) for r in rows) == [
        (model, value, 3) for model in sorted({"twin", small().name}) for value in (0.1, 0.4)
    ]
    means = {(r.group["model"], r.group["parameters"]["spread"]): r.mean for r in rows}
    own = [to_reference(r) for r in report.records if r.model.name == "twin" and r.swept[0].values == {"spread": 0.4}]
    assert means["twin", 0.4] == pytest.approx(np.mean([v for v in own if v is not None]))
    whole = next(
        r for r in report.aggregates if r.quantity == "cosine (mean over values)" and r.group["model"] == "twin"
    )
    assert whole.mean == pytest.approx((means["twin", 0.1] + means["twin", 0.4]) / 2)
    assert any({c.a["model"], c.b["model"]} == {small().name, "twin"} for c in report.comparisons)
    Draft202012Validator(json_schema()).validate(json.loads(to_json(report)))


def test_similarities_hold_a_setting_against_the_reference_and_its_neighbour() -> None:
    report = attrsens.sweep(
        picture(), model=small(), param="patch_size", values="3,5,7", reference="5", stride=3, **FREE
    )
    maps = {r.swept[0].values["patch_size"]: a.map for r, a in zip(report.records, report.attributions, strict=True)}
    cosine = SIMILARITIES["cosine"].function

    def alike(a: int, b: int) -> float:
        return float(cosine(maps[a][None], maps[b][None])[0, 0])

    by_value = {r.swept[0].values["patch_size"]: r for r in report.records}
    assert to_reference(by_value[3]) == pytest.approx(alike(3, 5))
    assert to_reference(by_value[7]) == pytest.approx(alike(7, 5))
    assert not [s for s in by_value[5].similarities if s.role == "reference"]
    steps = {v: [(s.value, s.to) for s in r.similarities if s.role == "neighbour"] for v, r in by_value.items()}
    assert steps[3] == []
    assert steps[5] == [(pytest.approx(alike(5, 3)), by_value[3].key)]
    assert steps[7] == [(pytest.approx(alike(7, 5)), by_value[5].key)]
    similarity = by_value[3].similarities[0]
    assert similarity.floor is not None
    assert "draws: the method draws nothing" in similarity.definition


# -- which knob matters ----------------------------------------------------------------------------------------------


def test_the_effect_of_the_seed_is_exactly_zero_where_nothing_is_drawn() -> None:
    report = attrsens.sweep(picture(), model=small(), method="sp:stride=4,patch_size=4", param="all", **FREE)
    (seed,) = (e for e in report.effects if e.kind == "seed_effect")
    assert seed.effect == 0.0
    knobs = {e.knob: e for e in report.effects if e.kind == "knob_effect"}
    assert set(knobs) == {"patch_size", "stride", "fill", "align"}
    assert knobs["patch_size"].effect > 0
    moved = [p for p in knobs["patch_size"].points if p.value == 8]
    cosine = SIMILARITIES["cosine"].function
    maps = {json.dumps(r.swept[0].values): a.map for r, a in zip(report.records, report.attributions, strict=True)}
    expected = float(cosine(maps["{}"][None], maps['{"patch_size": 8}'][None])[0, 0])
    assert moved[0].c_star == pytest.approx(expected)


def test_draws_do_not_pass_for_an_effect() -> None:
    """n changes how noisy a map is, not what it is the mean of: c* is near 1 though maps at 32 and 64 differ."""
    images = [picture(i) for i in range(6)]
    report = attrsens.sweep(
        images,
        model=small(),
        method="sg:n=32,spread=0.05",
        param=["n"],
        values=["16,32,64"],
        reference="32",
        replicates=2,
        **FREE,
    )
    (n,) = (e for e in report.effects if e.kind == "knob_effect")
    assert abs(n.effect) < 0.05
    assert n.points[0].r < n.points[1].r


def test_one_draw_measures_no_effect_and_says_how_to() -> None:
    report = attrsens.sweep(picture(), model=small(), method="sg", param="n", values="3,6", **FREE)
    (n,) = (e for e in report.effects if e.kind == "knob_effect")
    assert n.effect is None
    assert "--replicates 2" in n.reason


def test_knobs_apart_are_those_that_are_named() -> None:
    given: dict[str, Any] = {"model": small(), "method": "sp:stride=4,patch_size=4"} | FREE
    report = attrsens.sweep(picture(), param=["patch_size", "fill"], apart=True, **given)
    assert [e.knob for e in report.effects if e.kind == "knob_effect"] == ["patch_size", "fill"]
    assert len(report.records) == 1 + 2 + 3
    with pytest.raises(AttrsensError, match="leave --values out"):
        prepare_sweep(picture(), param="patch_size", apart=True, values="3,4", **given)


def test_a_seed_sweep_measures_the_seed() -> None:
    report = attrsens.sweep(picture(), model=small(), method="sg:n=4", param="seed", **FREE)
    (seed,) = report.effects
    cosine = SIMILARITIES["cosine"].function
    maps = np.stack([a.map for a in report.attributions])
    pairs = cosine(maps, maps)[np.triu_indices(5, 1)]
    assert seed.effect == pytest.approx(1 - pairs.mean(), abs=1e-6)


def test_effects_do_not_change_when_the_sweep_reaches_further() -> None:
    given: dict[str, Any] = {"model": small(), "method": "sp:stride=4,patch_size=4", "param": "all"} | FREE
    near, far = (attrsens.sweep(picture(), span=span, **given) for span in (1, 2))

    def effects(report: Report) -> dict[str, float]:
        return {e.knob: e.effect for e in report.effects if e.kind == "knob_effect" and e.effect is not None}

    assert len(far.records) > len(near.records)
    assert effects(far) == pytest.approx(effects(near))


def test_methods_are_ranked_by_their_largest_effect() -> None:
    images = [picture(i) for i in range(6)]
    report = attrsens.sweep(images, model=small(), method=["sp:stride=4,patch_size=4", "gradcam"], param="all", **FREE)
    ranks = [e for e in report.effects if e.kind == "method_rank"]
    assert {e.method for e in ranks} == {"sp", "gradcam"}


def test_shares_add_cells_that_are_no_settings_of_the_sweep() -> None:
    report = attrsens.sweep(
        picture(),
        model=small(),
        method="rise:n=20",
        param=["cells", "keep"],
        values=["4,6", "0.4,0.5"],
        shares=2,
        cache=False,
        metrics="cosine",
    )
    shares = [e for e in report.effects if e.kind == "share"]
    assert {e.knob for e in shares} == {"cells", "keep", "seed"}
    assert sum(bool(r.swept) for r in report.records) == 4
    assert len(report.records) > 4


# -- metrics are knobs too -------------------------------------------------------------------------------------------


def test_a_metrics_knob_needs_no_further_map() -> None:
    given: dict[str, Any] = {"model": small(), "method": ["grad", "gi"], "cache": False}
    report = attrsens.sweep([picture(i) for i in range(2)], param="gini.sign", **given)
    assert spent(report) == (2 * 2, 2 * 2)
    names = {"gini:sign=signed", "gini:sign=abs", "gini"}
    assert {name for r in report.records for name in r.scores} <= names
    assert all(len(r.scores) > 1 for r in report.records)
    assert [e.kind for e in report.effects if e.kind in ("rank_stability", "specification_curve")]
    curve = next(e for e in report.effects if e.kind == "specification_curve")
    assert curve.of == len(report.records[0].scores)
    by_hand = 0
    for name in report.records[0].scores:
        values = {m: [r.scores[name].value for r in report.records if r.method.name == m] for m in ("grad", "gi")}
        up = 1 if report.records[0].scores[name].direction == "higher" else -1
        by_hand += up * (np.mean(values["grad"]) - np.mean(values["gi"])) > 0
    assert curve.holds == by_hand


# -- usage errors and files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--param NAME"),
        ({"param": "nonsense", "method": "sg"}, "parameter 'nonsense'"),
        ({"param": "patch_size", "method": "sg"}, "methods that have it: sp"),
        ({"param": "smooth.radius", "method": "sg"}, "--method sg\\+smooth"),
        ({"param": "zz.n", "method": "sg"}, "method, wrapper or metric"),
        ({"param": ["n", "n"], "method": "sg"}, "twice"),
        ({"param": "all"}, "--method"),
        ({"param": ["all", "n"], "method": "sg"}, "every knob"),
        ({"param": "n", "method": "sg", "values": ["1,2", "3,4"]}, "2 --values for 1"),
        ({"param": "n", "method": "sg", "draws": "own"}, "draws must be"),
        ({"param": "n", "method": "sg", "replicates": 0}, "replicates"),
        ({"param": "n"}, "several methods"),
        ({"param": "n", "method": "sg", "values": "5"}, "two values"),
        ({"param": "n", "method": "sg", "fail_if": "nonsense<1"}, "nonsense"),
    ],
)
def test_what_cannot_be_swept_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(AttrsensError, match=message) as error:
        prepare_sweep(picture(), model=small(), **options)
    assert error.value.exit_code == 2


def test_gates_test_every_setting(run_cli: Any, tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    command = ["sweep", tmp_path / "a.png", "--param", "patch_size", "--values", "60,90", "--stride", "60", "-q"]
    where = ["--out", tmp_path / "out", "--metrics", "cosine", "--fail-if"]
    assert run_cli(*command, *where, "cosine<-2")[0] == 0
    code, _, err = run_cli(*command, *where, "cosine<2")
    assert code == 1
    assert "gate failed" in err


def test_the_command_writes_its_pictures(run_cli: Any, tmp_path: Path) -> None:
    code, out, _ = run_cli(
        "sweep",
        "--param",
        "patch_size",
        "--values",
        "30,60,120",
        "--reference",
        "60",
        "--stride",
        "52",
        "--out",
        tmp_path / "out",
        "--metrics",
        "cosine,gini",
    )
    assert code == 0
    assert "patch_size=120" in out
    assert "which knob of sp matters" in out
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert report["command"] == "sweep"
    assert list(report["config"]["reference"].values()) == [{"patch_size": 60}]
    for name in report["figures"]:
        with Image.open(tmp_path / "out" / name) as image:
            assert image.info["Software"] == "attrsens"
    kinds = " ".join(report["figures"])
    assert "montage" in kinds
    assert "sweep-cosine" in kinds
    assert "effects" in kinds
    stability = [r["artifacts"]["stability"] for r in report["records"] if "stability" in r["artifacts"]]
    assert len(stability) == 1
    assert (tmp_path / "out" / stability[0]).is_file()


def test_an_image_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    report = attrsens.sweep(tmp_path, model=small(), param="patch_size", values="3,5", stride=4, **FREE)
    assert [f.stage for f in report.failures] == ["decode"]
    assert len(report.records) == 2


# -- how much is enough ----------------------------------------------------------------------------------------------


def test_sampling_stops_where_two_halves_agree_and_costs_no_more() -> None:
    report = attrsens.sweep(picture(), model=small(), method="sg", until="cosine=0.8", spread=0.3, cache=False)
    first, second = report.records
    n = first.method.parameters["n"]
    assert [r.method.parameters["seed"] for r in report.records] == [0, 1]
    cosine = SIMILARITIES["cosine"].function
    a, b = (attribution.map for attribution in report.attributions)
    value = float(cosine(a[None], b[None])[0, 0])
    assert value >= 0.8
    assert second.similarities[0].value == pytest.approx(value)
    assert second.similarities[0].role == "half"
    batch = small().sizes[1]
    assert spent(report)[1] <= 2 * (-(-n // batch) * batch)
    for smaller in [m for m in sizes(1024) if m < n]:  # each of them fell short
        again = [
            attrsens.explain(picture(), model=small(), method="sg", n=smaller, seed=s, spread=0.3, cache=False)
            for s in (0, 1)
        ]
        x, y = (r.attributions[0].map for r in again)
        assert float(cosine(x[None], y[None])[0, 0]) < 0.8
    rows = {r.quantity: r.mean for r in report.aggregates}
    assert rows == {"draws": n, "goal reached": 1.0, "cosine": pytest.approx(value)}


def test_a_goal_out_of_reach_ends_at_the_most_and_says_so(tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": small(), "method": ["sg:spread=2", "rise:cells=4"], "until": "cosine=0.9999999"}
    report = attrsens.sweep(picture(), most=12, cache_dir=tmp_path, **given)
    assert {r.method.parameters["n"] for r in report.records} == {12}
    assert [r.mean for r in report.aggregates if r.quantity == "goal reached"] == [0.0, 0.0]
    again = attrsens.sweep(picture(), most=12, cache_dir=tmp_path, **given)
    assert spent(again) == (-1, 0)  # not even the prediction
    assert to_json(again).split(b'"provenance"')[0] == to_json(report).split(b'"provenance"')[0]


def test_draws_are_added_until_a_scores_interval_is_narrow() -> None:
    report = attrsens.sweep(picture(), model=small(), method="sg:n=2", until="gini.width=0.005", cache=False)
    values = [r.scores["gini"].value for r in report.records]
    k = len(values)
    assert [r.method.parameters["seed"] for r in report.records] == list(range(k))

    def width(part: list[float]) -> float:
        return float(2 * stats.t.ppf(0.975, len(part) - 1) * np.std(part, ddof=1) / np.sqrt(len(part)))

    assert k > FEWEST
    assert width(values) <= 0.005
    assert all(width(values[:m]) > 0.005 for m in range(FEWEST, k))
    rows = {r.quantity: r.mean for r in report.aggregates}
    assert rows["draws"] == k
    assert rows["gini"] == pytest.approx(np.mean(values))


@pytest.mark.parametrize(
    ("until", "message"),
    [
        ("ssim", "cannot read"),
        ("ssim=x", "cannot read"),
        ("gini=0.1", "gini.width"),
        ("ssim.width=0.1", "write ssim="),
        ("gini.width=0", "more than 0"),
        ("zz=1", "unknown metric"),
    ],
)
def test_a_goal_that_makes_no_sense_is_one_line(until: str, message: str) -> None:
    with pytest.raises(AttrsensError, match=message):
        prepare_sweep(picture(), model=small(), method="sg", until=until)
    with pytest.raises(AttrsensError, match="draws nothing"):
        prepare_sweep(picture(), model=small(), method="grad", until="ssim=0.9")


def test_a_goal_of_a_distance_is_reached_from_above(tmp_path: Path) -> None:
    report = attrsens.sweep(picture(), model=small(), method="sg", until="l2:scale=none=0.005", spread=0.3, cache=False)
    values = {r.quantity: r.mean for r in report.aggregates}
    assert values["goal reached"] == 1
    assert values["l2:scale=none"] <= 0.005
    assert values["draws"] > 2


def test_a_goal_is_not_told_from_the_cache_of_another_map(tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": small(), "until": "cosine=0.9", "spread": 0.5}
    signed = attrsens.sweep(picture(), method="sg", cache_dir=tmp_path, **given)
    after = attrsens.sweep(picture(), method="sg:sign=abs", cache_dir=tmp_path, **given)
    alone = attrsens.sweep(picture(), method="sg:sign=abs", cache=False, **given)
    counts = [r.records[0].method.parameters["n"] for r in (signed, after, alone)]
    assert counts[1] == counts[2] != counts[0]


def test_a_goal_whose_map_was_lost_is_sampled_again(tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": small(), "method": "sg:spread=0.3", "until": "cosine=0.8", "cache_dir": tmp_path}
    first = attrsens.sweep(picture(), **given)
    largest = max(tmp_path.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    largest.unlink()
    again = attrsens.sweep(picture(), **given)
    assert again.provenance.passes_run.backward > 0
    assert [r.key for r in again.records] == [r.key for r in first.records]


@pytest.mark.parametrize(
    ("method", "param", "until"),
    [("ig", ["steps"], "cosine=0.9"), ("mp", ["steps"], "cosine=0.9"), ("ig:steps=4", [], "gini.width=0.05")],
)
def test_only_what_counts_draws_is_sampled(method: str, param: list[str], until: str) -> None:
    with pytest.raises(AttrsensError, match=r"counts no draws|draws nothing"):
        prepare_sweep(picture(), model=small(), method=method, param=param, until=until)


# -- what a review found -----------------------------------------------------------------------------------------------


def test_a_swept_seed_is_the_draws_of_another_knob() -> None:
    given: dict[str, Any] = {"param": ["spread", "seed"], "values": ["0.025,0.05,0.1", "0,1,2"], "reference": ["0.05"]}
    report = attrsens.sweep([picture(i) for i in range(6)], model=small(), method="sg:n=16", **given, **FREE)
    (spread,) = (e for e in report.effects if e.kind == "knob_effect")
    (seed,) = (e for e in report.effects if e.kind == "seed_effect")
    assert spread.effect is not None
    assert 0 < seed.effect < 1
    assert sum(r.swept[0].values["spread"] == 0.05 for r in report.records) == 6 * 3


def test_a_call_that_draws_nothing_is_drawn_once_though_it_has_a_seed() -> None:
    report = attrsens.sweep(picture(), model=small(), method="ig:steps=4", param="steps", apart=True, **FREE)
    assert len(report.records) == 3
    (seed,) = (e for e in report.effects if e.kind == "seed_effect")
    assert seed.effect == 0.0
    (steps,) = (e for e in report.effects if e.kind == "knob_effect")
    assert steps.effect is not None
    mixed = attrsens.sweep(
        picture(),
        model=small(),
        method="ig:steps=4,trials=2",
        param="baseline",
        values="black,random",
        replicates=2,
        **FREE,
    )
    assert [len(p.calls) for p in _points("ig", "baseline", "black,random")] == [1, 2]
    assert next(e for e in mixed.effects if e.kind == "seed_effect").effect == 0.0
    assert next(e for e in mixed.effects if e.kind == "knob_effect").effect is not None


def _points(method: str, name: str, values: str) -> Any:
    return study(method, name, values=(values,), replicates=2).points


def test_models_of_one_name_stay_apart() -> None:
    models = [twin(name="same"), twin(0.4, name="same")]
    report = attrsens.sweep(
        [picture(i) for i in range(2)], model=models, method="sg:n=4", param="spread", values="0.1,0.3", cache=False,
        metrics=["cosine", "gini"],
    )  # fmt: skip
    names = {r.group["model"] for r in report.aggregates}
    assert len(names) == 2
    shifts = [e for e in report.effects if e.kind == "score_effect"]
    assert len({e.group["model"] for e in shifts}) == 2
    (sam,) = (e for e in report.effects if e.kind == "stability")
    by_model = {m.id: [r for r in report.records if r.model.id == m.id] for m in models}
    for model, records in by_model.items():
        table = [
            [r.scores["gini"].value for r in records if r.image.path == path]
            for path in {r.image.path for r in records}
        ]
        assert sam.mean[model] == pytest.approx(np.mean(table))
        assert sam.mean_std[model] == pytest.approx(np.mean(np.std(table, axis=1)))
        assert sam.rms_std[model] == pytest.approx(np.sqrt(np.mean(np.var(table, axis=1))))
    means = [c for c in report.comparisons if c.quantity == "cosine (mean over values)"]
    assert len(means) == 1


def test_the_classes_of_an_image_are_averaged() -> None:
    given: dict[str, Any] = {
        "model": small(),
        "method": "sp:stride=4,patch_size=4",
        "param": "patch_size",
        "apart": True,
    }
    both = attrsens.sweep(picture(), target=["0", "1"], **given, **FREE)
    each = [attrsens.sweep(picture(), target=t, **given, **FREE) for t in ("0", "1")]

    def star(report: Report, value: int) -> float:
        (e,) = (e for e in report.effects if e.kind == "knob_effect")
        return next(p.c for p in e.points if p.value == value)

    assert star(both, 8) == pytest.approx(np.mean([star(r, 8) for r in each]))


def test_a_reduction_without_the_references_shape_is_told(tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": small(), "method": "grad", "param": "reduce", "reference": "mean"}
    for values in ("none,mean,sum", "mean,sum,none"):
        report = attrsens.sweep(picture(), values=values, **given, **FREE)
        (e,) = (e for e in report.effects if e.kind == "knob_effect")
        assert "none is left out: the map's shape" in e.reason


def test_rows_do_not_depend_on_the_other_sweeps() -> None:
    given: dict[str, Any] = {"model": small(), "param": "n", "apart": True, "spread": 0.3}
    alone = attrsens.sweep(picture(), method=["sg:n=8"], **given, **FREE)
    beside = attrsens.sweep(picture(), method=["sg:n=4", "sg:n=8"], **given, **FREE)

    def rows(report: Report) -> dict[Any, float | None]:
        mine = [r for r in report.aggregates if r.group["base"].startswith("sg:n=8,")]
        return {(r.quantity, str(r.group.get("parameters")), str(r.group.get("to"))): r.mean for r in mine}

    assert rows(beside) == rows(alone)


def test_one_knob_is_not_two() -> None:
    with pytest.raises(AttrsensError, match="one knob"):
        prepare_sweep(picture(), model=small(), method="sg", param=["sg.n", "n"])
    close = "0.2,0.2000000000001,0.4"
    report = attrsens.sweep(
        picture(), model=small(), method="sg:n=4", param="spread", values=close, replicates=2, **FREE
    )
    assert [e.kind for e in report.effects if e.kind == "knob_effect"]


def test_conventions_differ_in_one_knob_and_know_their_direction() -> None:
    given: dict[str, Any] = {"model": small(), "method": ["grad", "gi", "sg:n=2"], "cache": False}
    images = [picture(i) for i in range(3)]
    report = attrsens.sweep(images, param=["deletion.fill", "deletion.auc"], values=["mean,black", "raw,norm"], **given)
    taus = [e for e in report.effects if e.kind == "rank_stability"]
    assert {(e.group["knob"], e.a, e.b) for e in taus} == {
        ("deletion.fill", "deletion", "deletion:fill=black"),
        ("deletion.auc", "deletion", "deletion:auc=norm"),
    }
    curve = next(e for e in report.effects if e.kind == "specification_curve" and (e.a, e.b) == ("grad", "gi"))
    assert curve.of == 4
    held = 0
    for name in report.records[0].scores:
        mean = {
            m: np.mean([r.scores[name].value for r in report.records if r.method.name == m]) for m in ("grad", "gi")
        }
        held += mean["grad"] < mean["gi"]  # less is better
    assert curve.holds == held


def test_a_setting_that_fails_is_missing_everywhere() -> None:
    images = [picture(i) for i in range(2)]
    report = attrsens.sweep(images, model=small(), param="patch_size", values="3,5,7", reference="3", stride=3, **FREE)
    for record in report.records:  # as if a setting of the first image had failed
        if record.image.path == report.records[0].image.path and record.swept[0].values == {"patch_size": 7}:
            gone = record
    kept = [r for r in report.records if r is not gone]
    prepared = prepare_sweep(images, model=small(), param="patch_size", values="3,5,7", reference="3", stride=3, **FREE)
    tables = Tables(kept, prepared.sweep, {kept[0].model.id: "m"})
    rows = {(r.quantity, r.group.get("parameters", {}).get("patch_size")): r for r in tables.aggregates()}
    assert (rows["cosine", 7].n, rows["cosine", 7].missing) == (1, 1)
    assert (rows["cosine", 5].n, rows["cosine", 5].missing) == (2, 0)
    mean = rows["cosine (mean over values)", None]
    assert (mean.n, mean.missing) == (1, 1)
    whole = [to_reference(r) for r in kept if r.image.path != gone.image.path and not r.swept[0].reference]
    assert mean.mean == pytest.approx(np.mean([v for v in whole if v is not None]))


def test_scores_that_rank_methods_alike_agree() -> None:
    given: dict[str, Any] = {"model": small(), "method": ["grad", "gi", "sg:n=4"], "param": "space", "cache": False}
    images = [picture(i) for i in range(3)]
    report = attrsens.sweep(images, metrics=["gini", "insertion", "deletion"], **given)
    (found,) = (e for e in report.effects if e.kind == "metric_agreement")
    assert (found.metrics, found.methods) == (["gini", "insertion", "deletion"], ["grad", "gi", "sg"])
    ranks = []
    for name, up in (("gini", 1), ("insertion", 1), ("deletion", -1)):
        rows = [r for r in report.records if any(p.reference and p.main for p in r.swept)]
        table = [[up * r.scores[name].value for r in rows if r.image.path == image] for image in _paths(report)]
        ranks.append([stats.rankdata([-v for v in row]) for row in table])
    data = np.asarray(ranks).reshape(3, -1)  # interval alpha by its definition: raters x units
    within = np.mean([(a - b) ** 2 for unit in data.T for a in unit for b in unit]) * 3 / 2
    flat = data.ravel()
    expected = np.sum((flat[:, None] - flat) ** 2) / (len(flat) * (len(flat) - 1))
    assert found.alpha == pytest.approx(1 - within / expected)


def _paths(report: Report) -> list[str]:
    return list(dict.fromkeys(r.image.path for r in report.records))


def test_no_copy_at_all_is_a_setting_without_a_place_on_the_octave_axis() -> None:
    report = attrsens.sweep(
        picture(),
        model=small(),
        method="sg:spread=0.05",
        param="n",
        values="0,8,16,32",
        reference="16",
        replicates=2,
        **FREE,
    )
    (n,) = (e for e in report.effects if e.kind == "knob_effect")
    assert n.effect is not None
    one = attrsens.sweep(picture(), model=small(), method="sg:n=1,spread=0.01", param="n", apart=True, **FREE)
    assert [e.knob for e in one.effects if e.kind == "knob_effect"] == ["n"]


def test_a_goal_is_not_told_from_the_cache_of_another_measure(tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": small(), "method": "sg", "spread": 0.5, "sign": "abs"}
    attrsens.sweep(picture(), until="cosine=0.9", cache_dir=tmp_path, **given)
    cached = attrsens.sweep(picture(), until="pearson=0.9", cache_dir=tmp_path, **given)
    alone = attrsens.sweep(picture(), until="pearson=0.9", cache=False, **given)
    assert [r.key for r in cached.records] == [r.key for r in alone.records]
    assert cached.aggregates == alone.aggregates


def test_what_the_store_has_is_what_counts(tmp_path: Path) -> None:
    """A map that was computed alone may differ in its last bits from that of a shared run."""
    given: dict[str, Any] = {"model": small(), "method": "sg", "cache_dir": tmp_path}
    alone = attrsens.explain(picture(), n=11, **given)
    reports = [
        attrsens.sweep(picture(), param="n", values="5,11,40", draws="nested", metrics="cosine", **given) for _ in "12"
    ]
    maps = [[a.map.tobytes() for a in report.attributions] for report in reports]
    assert maps[0] == maps[1]
    assert maps[0][1] == alone.attributions[0].map.tobytes()
    assert reports[0].provenance.passes_run.backward == 40

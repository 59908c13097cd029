"""Presets: every shipped one means what its command understands, the command line wins, files are untrusted."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer
from conftest import DATA, needs_data
from PIL import Image as PIL
from toys import small

import attrsens
from attrsens import METHODS, SCORES, SIMILARITIES, AttrsensError
from attrsens.cli import app
from attrsens.cli.preset import defaults
from attrsens.engine import presets
from attrsens.engine.beside import _parts, beside
from attrsens.engine.cell import parse_calls
from attrsens.engine.metrics import parse_metrics
from attrsens.engine.plan import plan
from attrsens.engine.prepare import prepare, prepare_score
from attrsens.engine.prepare_attack import prepare_attack
from attrsens.engine.prepare_compare import prepare_compare
from attrsens.engine.prepare_sweep import prepare_sweep
from attrsens.engine.presets import load, read, shipped, without
from attrsens.engine.report import Aggregate, Report
from attrsens.engine.scaling import Scale
from attrsens.spec import WRAPPERS, split_expression

README = Path(__file__).parent.parent / "README.md"
ALL = [load(name) for name in shipped()]
REGIONAL = {name for name in SCORES if SCORES[name].traits.get("regional")}
HEAD = 'command = "score"\n[options]\n'


@pytest.fixture
def write(tmp_path):
    def call(text: str | bytes, name: str = "mine.toml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return call


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "noise.png"
    PIL.fromarray(np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(path)
    return path


def commands() -> dict[str, typer.Context]:
    """A context of every command."""
    group = typer.main.get_command(app)
    with typer.Context(group) as context:
        return {n: typer.Context(group.get_command(context, n), info_name=n) for n in group.list_commands(context)}


# -- what is shipped -------------------------------------------------------------------------------------------------


def test_the_issue_s_presets_are_there():
    cross = {"sam-noise", "sam-sg-cross", "sam-gbp-cross", "sam-gi-ig", "sam-outline"}
    assert cross <= {p.name for p in ALL if p.command == "compare"}
    assert {"explain", "score", "compare", "sweep", "attack"} == {p.command for p in ALL}
    sweeps = {p.name for p in ALL if p.command == "sweep"}
    knobs = "sg-n sg-std mp-iter mp-blur mp-seed mp-init sp-l sp-s lime-seed lime-n lime-k tennis acc-45 hidden".split()
    assert {f"sam-{knob}" for knob in knobs} | {"hse-radius", "smo-infid-sigma"} <= sweeps
    assert {"bnd-corr", "bnd-baseline", "bnd-bsg", "bnd-counterfactual", "bnd-dist", "hse-levels", "hse-topk"} <= {
        p.name for p in ALL
    }


@pytest.mark.parametrize("preset", ALL, ids=lambda p: p.name)
def test_a_shipped_preset_says_everything_and_its_values_parse(preset):
    for key in ("what", "question", "source", "cost", "follows", "setting", "published"):
        assert getattr(preset, key), key
    assert len(preset.what) <= 120
    assert re.fullmatch(r"[0-9a-f]{64}", preset.sha256)
    assert len(parse_calls(preset.options["method"], {})) == len(preset.options["method"])
    if "metrics" in preset.options:
        parse_metrics(preset.options["metrics"])
    if preset.command == "sweep":
        assert preset.options["draws"] == "nested"
        listed = {k: v if isinstance(v, list) else [v] for k, v in preset.options.items()}
        assert len(listed["param"]) == len(listed["values"]) == len(listed["reference"])
    known = defaults(preset, commands()[preset.command])
    assert {k.rstrip("_") for k in known} == {k.replace("-", "_") for k in preset.options}
    assert not preset.pair or preset.command == "compare"
    stated = [h for text in [*preset.options["method"], *preset.options.get("metrics", [])] for h in counted(text)]
    assert preset.side in (0, 224)
    assert preset.side == 224 or not stated, "sizes in pixels, of no side"


def counted(expression: str) -> list[str]:
    """The parameters of an expression that count pixels."""
    found = []
    for part in split_expression(expression):
        name, _, rest = part.partition(":")
        for registry in (METHODS, WRAPPERS, SCORES, SIMILARITIES):
            if name in registry:
                pixels = {h.name for h in registry[name].hypers if h.param.pixels}
                found += [pair.partition("=")[0] for pair in rest.split(",") if pair.partition("=")[0] in pixels]
    return found


@pytest.mark.parametrize("preset", [p for p in ALL if not isinstance(p.published, str)], ids=lambda p: p.name)
def test_published_numbers_are_of_what_the_preset_computes(preset):
    computed = {call.name for calls in parse_metrics(preset.options.get("metrics", ["gini"])) for call in calls}
    computed = computed | {"top1"} if preset.options.get("target") == "true" else computed
    methods = {call.name for call in parse_calls(preset.options["method"], {})}
    low_high = {name: registry[name].traits["range"] for registry in (SCORES, SIMILARITIES) for name in registry}
    for row in preset.published:
        quantities = set(row) - {"of", "text", "where", "over"}
        assert quantities or row["text"]
        first = re.match(r"\w+", row["of"])[0]
        assert first in methods or len(methods) == 1 or not quantities or "model" in row["where"]
        assert row.get("where", {}).get("method", "grad") in {*methods, "grad"}
        for quantity in quantities:
            names = [name for name, _ in _parts(quantity) if re.fullmatch(r"\w+", name)]
            assert names
            assert set(names) <= computed, quantity
            value = row[quantity][0] if isinstance(row[quantity], list) else row[quantity]
            low, high = low_high.get(quantity, (None, None)) if "over" not in row else (0, None)
            assert low is None or value >= low, row
            assert high is None or value <= high, row


def test_maps_beside_the_boundary_search_are_at_its_point():
    (preset,) = [p for p in ALL if p.name == "bnd-search"]
    found = [c.parameters for c in parse_calls(preset.options["method"], {}) if c.name in ("bsm", "big")]
    assert len(found) == 2
    for own in found:
        assert (own["search"], own["search_steps"]) == (preset.options["search"], preset.options["steps"])
        assert (own["bisect"], own["polish"]) == (preset.options["bisect"], preset.options["polish"])


def test_smo_s_attacks_explain_averages_of_magnitudes():
    calls = [c for p in ALL if p.name.startswith("smo-attack") for c in parse_calls(p.options["method"], {})]
    assert {c.parameters["sign"] for c in calls if c.name in ("sg", "ug")} == {"abs_sample"}


def test_numbers_that_the_papers_print():
    """A few of them, typed anew from the papers' tables."""
    rows = {(p.name, row["of"]): row for p in ALL if not isinstance(p.published, str) for row in p.published}
    assert rows["hse-mnist", "grad, regular net"]["max_sensitivity"] == 0.912
    assert rows["hse-cifar", "ig+smooth, robust net"]["mean_sensitivity"] == 0.521
    assert rows["smo-gini", "grad+softplus"]["gini"] == [0.65, 0.067]
    assert rows["smo-infid-cifar", "CURE"]["infidelity"] == [0.59, 0.34]
    assert rows["bnd-loc", "agi, robust net"]["pp"] == 0.88
    assert rows["bnd-align", "ig to big, ImageNet, robust Linf 8/255"]["alignment:to=auto,measure=raw"] == 1.45
    assert rows["hse-levels", "grad+smooth, net of 90 % adversarial accuracy"]["mean_sensitivity"] == 0.252
    assert rows["bnd-corr", "ig to agi"]["correlation(-alignment:to=agi,measure=raw, con)"] == -0.03
    assert rows["sam-acc", "GoogLeNet, robust"]["top1"] == 0.5094
    assert rows["sam-gbp-cross", "grad of both"]["ssim"] == 0.239
    assert sum(name in ("hse-mnist", "hse-cifar") for name, _ in rows) == 40


@pytest.mark.parametrize("preset", ALL, ids=lambda p: p.name)
def test_the_plan_of_a_preset_on_a_small_net(preset, image):
    """With sizes as 16 pixels want them, and masks of fewer cells: everything is checked but run."""
    given = {k: preset.options.get(k, []) for k in ("method", "metrics", "param", "values", "reference")}
    given = {k: list(v) if isinstance(v, list) else [v] for k, v in given.items()}
    if preset.side:
        given = Scale(preset.side, 16).request(given, lambda name: False)
    method = [re.sub(r"^mp:", "mp:mask_side=8,", m) for m in given["method"]]
    metrics = [m for m in given["metrics"] if m.split(":")[0].split(",")[0] not in REGIONAL]
    options = {"model": small(), "method": method, "cache": False}
    if preset.command == "compare":
        options["model"] = [small(), small("relu6")]
        noise = {k.replace("-", "_"): v for k, v in preset.options.items() if k.startswith("noise")}
        prepared = prepare_compare(image, metrics=metrics, **noise, **options)
    elif preset.command == "sweep":
        swept = {k: given[k] for k in ("param", "values", "reference")}
        prepared = prepare_sweep(image, metrics=metrics, draws=preset.options["draws"], **swept, **options)
        assert all(len(v) > 1 for knobs in prepared.config["values"].values() for v in knobs.values())
    elif preset.command == "attack":
        flags = {
            k.replace("-", "_"): v for k, v in preset.options.items() if k not in ("method", "kind", "lpips-range")
        }
        prepared = prepare_attack(image, kind=preset.options["kind"], attack=flags, **options)
        assert len(prepared.attacks) == str(preset.options["eps"]).count(",") + 1 if "eps" in preset.options else 1
    elif metrics:
        prepared = prepare_score(image, metrics=metrics, calibrate=False, **options)
    else:
        prepared = prepare(image, **options)
    found = plan(prepared.request, None, prepared.judging)
    assert found.cells == len(prepared.request.calls) * len(prepared.request.views)
    assert found.forward >= found.cells or preset.command == "sweep"  # whose settings share runs


# -- sizes in pixels -------------------------------------------------------------------------------------------------


def test_values_go_with_the_side():
    scale = Scale(224, 32)
    sp, mp, topk, stride = METHODS["sp"], METHODS["mp"], WRAPPERS["topk"], SCORES["infidelity"].hyper("stride")
    assert [scale.value(sp.hyper("patch_size"), v) for v in (1, 5, 17, 29, 53)] == [1, 1, 2, 4, 8]
    assert scale.value(mp.hyper("blur_radius"), 10.0) == pytest.approx(10 / 7, rel=1e-5)
    assert scale.value(mp.hyper("jitter"), 4) == 1  # one that is not 0 does not become it
    assert scale.value(mp.hyper("jitter"), 0) == 0
    assert scale.value(topk.hyper("k"), 13000) == round(13000 / 49)
    assert scale.value(SCORES["deletion"].hyper("step"), 1792) == 37
    assert scale.value(stride, 1) == 1
    assert scale.value(METHODS["sg"].hyper("n"), 50) == 50
    assert scale.value(METHODS["lime"].hyper("segments"), 50) == 50
    assert Scale(224, 448).value(sp.hyper("patch_size"), 29) == 58
    assert Scale(224, 448).value(mp.hyper("blur_radius"), 900.0) == 1000  # its most
    assert Scale(224, 224).expression("sp:patch_size=29,stride=3") == "sp:patch_size=29,stride=3"


def test_expressions_go_with_the_side():
    scale = Scale(224, 32)
    assert scale.expression("sp:patch_size=29,stride=3,fill=mean") == "sp:patch_size=4,stride=1,fill=mean"
    assert scale.expression("grad+topk:k=13000+smooth:n=50,radius=0.3") == "grad+topk:k=265+smooth:n=50,radius=0.3"
    assert scale.expression("sp") == "sp"
    assert scale.expression("deletion:step=1792,auc=norm") == "deletion:step=37,auc=norm"
    assert scale.expression("spearman,hog,ssim") == "spearman,hog,ssim"
    assert scale.expression("sp:patch_size=many") == "sp:patch_size=many"  # an error elsewhere
    assert scale.used["sp:patch_size"] == {"29": 4}
    assert scale.facts()["factor"] == pytest.approx(1 / 7, abs=1e-6)


def test_sweeps_go_with_the_side():
    patch, radius = METHODS["sp"].hyper("patch_size"), METHODS["mp"].hyper("blur_radius")
    assert Scale(224, 32).values(patch, (5, 17, 29, 41, 53), 29) == {5: 1, 17: 2, 29: 4, 41: 6, 53: 8}
    assert Scale(224, 32).values(patch, (52, 53, 54), 53) == {52: 7, 53: 8, 54: 8}
    assert Scale(224, 16).values(patch, (52, 53, 54), 53) == {52: 3, 53: 4, 54: 5}  # all of them 4: the next ones
    assert Scale(224, 4).values(patch, (5, 6, 7), 6) == {5: 1, 6: 2, 7: 3}  # below 1 there is none
    assert Scale(224, 4).values(patch, (5, 6), 5) == {5: 1, 6: 2}
    assert list(Scale(224, 32).values(radius, (5.0, 10.0, 30.0), 10.0).values()) == pytest.approx(
        [5 / 7, 10 / 7, 30 / 7], rel=1e-5
    )
    with pytest.raises(AttrsensError, match=r"blur_radius: 999.0, 1000.0 at 224 pixels are one value at 4480"):
        Scale(224, 4480).values(radius, (999.0, 1000.0), 999.0)
    swept = {"method": ["sp:stride=3"], "param": ["patch_size"], "values": ["52,53,54"], "reference": ["53"]}
    done = Scale(224, 32).request(swept, lambda name: False)
    assert (done["method"], done["values"], done["reference"]) == (["sp:stride=1"], ["7,8"], ["8"])
    kept = Scale(224, 32).request(swept, lambda name: name == "values_")
    assert (kept["values"], kept["reference"]) == (["52,53,54"], ["53"])
    with pytest.raises(AttrsensError, match="a preset with a side states the knob's values and reference"):
        Scale(224, 32).request(swept | {"values": []}, lambda name: False)


SIDED = """
command = "sweep"
side = 224
setting = "two nets; a thousand pictures"
lost = "the fill: mean stands in"
published = [
  { of = "sp, regular net", where = { model = 1, patch_size = 2 }, ssim = 0.5 },
  { of = "sp, robust net", where = { model = 2, patch_size = 2 }, ssim = [0.7, 0.1] },
  { of = "sp, robust over regular", where = { model = 2 }, over = { model = 1 }, "ssim (mean over values)" = 1.4 },
  { of = "ig", text = "not of interest" },
]
[options]
method = "sp:fill=mean"
stride = 14
param = "patch_size"
values = "14,28,56"
reference = 28
draws = "nested"
metrics = ["ssim", "insertion:step=3584"]
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A module whose net sees 32 pixels, one whose sees 16, and the words that name them."""
    (tmp_path / "nets.py").write_text("import toys\ndef net():\n    return toys.SmallNet('reused')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import torch
    from toys import SmallNet

    weights = tmp_path / "net.pt"
    torch.save(SmallNet("reused").state_dict(), weights)
    return ["--model", weights, "--arch", "py:nets:net"]


def test_a_sweep_preset_runs_at_another_side(run_cli, write, image, toy, tmp_path):
    out = tmp_path / "out"
    common = ("sweep", image, "--preset", write(SIDED), *toy, "--no-cache", "--out", out)
    code, stdout, err = run_cli(*common, "--preprocess", "resize=32,crop=32")
    assert code == 0, err
    report = json.loads((out / "report.json").read_text())
    preset = report["config"]["preset"]
    assert (preset["setting"], preset["lost"]) == ("two nets; a thousand pictures", "the fill: mean stands in")
    assert preset["published"][1]["ssim"] == [0.7, 0.1]
    assert preset["scale"]["values"] == {
        "sp:stride": {"14": 2},
        "sp:patch_size": {"14": 2, "28": 4, "56": 8},
        "insertion:step": {"3584": 73},
    }
    assert (preset["scale"]["side"], preset["scale"]["crop"]) == (224, 32)
    assert list(report["config"]["values"].values()) == [{"patch_size": [2, 4, 8]}]
    assert {r["method"]["parameters"]["stride"] for r in report["records"]} == {2}
    assert "insertion:step=73" in report["records"][0]["scores"]
    assert "paper       two nets; a thousand pictures" in stdout
    assert "lost        the fill: mean stands in" in stdout
    assert "sp:patch_size 14 is 2, 28 is 4, 56 is 8" in stdout
    assert re.search(r"0.5 +\S+ +- +1 +ssim, sp, regular net \(net\)", stdout)
    assert re.search(r"0.7 sd 0.1 +- .*ssim, sp, robust net \(nothing in this run is of it\)", stdout)
    assert re.search(r"1.4 +- .*ratio of ssim \(mean over values\)", stdout)
    code, stdout, _ = run_cli(*common, "--preprocess", "resize=32,crop=32", "--json", "-")
    assert (code, json.loads(stdout)["command"]) == (0, "sweep")


def test_what_is_typed_is_not_scaled(run_cli, write, image, toy, tmp_path):
    out = tmp_path / "out"
    common = ("sweep", image, "--preset", write(SIDED), *toy, "--preprocess", "resize=32,crop=32", "--out", out)
    code, _, err = run_cli(*common, "--values", "3,5", "--stride", "5", "--metrics", "insertion:step=100")
    assert code == 0, err
    config = json.loads((out / "report.json").read_text())["config"]
    assert list(config["values"].values()) == [{"patch_size": [3, 5]}]
    assert "stride=5" in config["method"][0]
    assert config["preset"]["scale"]["values"] == {}
    assert config["preset"]["overruled"] == ["metrics", "stride", "values"]
    code, _, err = run_cli(*common, "--param", "stride", "--values", "2,4")
    assert code == 0, err
    assert list(json.loads((out / "report.json").read_text())["config"]["values"].values()) == [{"stride": [2, 4]}]


def test_models_of_several_sides(run_cli, write, image, toy):
    code, _, err = run_cli("sweep", image, "--preset", write(SIDED), *toy, "--model", "lite0")
    assert (code, err.splitlines()[-1]) == (
        2,
        "attrsens: preset mine.toml scales its pixel values to one side, and the models see several: net no crop, "
        "lite0 224",
    )
    code, _, err = run_cli("sweep", image, "--preset", write(SIDED), *toy)
    assert (code, "net has none; give --preprocess crop=SIDE" in err) == (2, True)
    code, _, err = run_cli("sweep", "none.png", "--preset", write(SIDED), *toy)
    assert (code, "none.png" in err) == (2, True)


# -- what was published, beside the run ------------------------------------------------------------------------------


def report_of(published, aggregates, effects=(), models=("a", "b"), records=()):
    config = {"model": list(models), "preset": {"published": published}}
    return Report("score", config, list(records), [], None, aggregates=aggregates, effects=list(effects))


def row_of(quantity, mean, ci95=None, n=9, **group):
    return Aggregate(
        quantity, {"model": "a", "method": "sg", "noise": 0.0, "parameters": {}} | group, mean, 0.1, ci95, n, 0, {}
    )


def test_rows_find_what_they_are_held_against():
    sg = {"expression": "sg:..."}
    rows = [
        row_of("gini:offset=1e-07", 0.5, **sg),
        row_of("gini:offset=1e-07", 0.6, model="b", **sg),
        row_of("gini", 0.7, parameters={"sign": "abs_sample"}),
        row_of("ssim", 0.3, method="gbp", to={"model": "b", "method": "grad", "noise": 0.0, "parameters": {}}),
        row_of("alignment:measure=raw", 4.0),
        row_of("alignment", 0.4),
        row_of("correlation(-alignment:measure=raw, loc)", 0.2),
    ]

    def found(row, rows=rows):
        return [(one.mean, one.model) for one in beside(report_of([row], rows))]

    assert found({"of": "sg, all", "gini:offset=1e-7": 1}) == [(0.5, "a"), (0.6, "b")]
    assert found({"of": "sg", "where": {"model": 2}, "gini": 1}) == [(0.6, "b")]
    assert found({"of": "sg", "where": {"sign": "abs_sample"}, "gini": 1}) == [(0.7, "a")]
    assert found({"of": "grad", "where": {"model": 2}, "gini": 1}) == [(None, "")]
    assert found({"of": "sg", "where": {"model": 3}, "gini": 1}) == [(None, "")]
    pair = {"method": "gbp", "model": 1, "to": {"method": "grad", "model": 2}}
    turned = {"method": "grad", "model": 2, "to": {"method": "gbp", "model": 1}}
    assert (
        found({"of": "x", "where": pair, "ssim": 1}) == found({"of": "x", "where": turned, "ssim": 1}) == [(0.3, "a")]
    )
    assert found({"of": "x", "where": {"method": "gbp"}, "ssim": 1}) == [(None, "")]  # of no pair
    assert found({"of": "sg", "alignment:measure=raw": 1}) == [(4.0, "a")]
    assert found({"of": "sg", "alignment:measure=cosine": 1}) == [(0.4, "a")]
    assert found({"of": "sg", "correlation(-alignment:measure=raw, loc)": 1}) == [(0.2, "a")]
    assert found({"of": "sg", "correlation(-alignment:measure=raw, eg)": 1}) == [(None, "")]
    assert beside(report_of("a text", rows)) == []


def test_a_ratio_is_given_where_there_is_one():
    row = {"of": "sg", "where": {"model": 2}, "over": {"model": 1}, "gini": 2.0}

    def ratio(a, interval):
        (one,) = beside(report_of([row], [row_of("gini", a, interval), row_of("gini", 0.6, model="b")]))
        return one.mean, one.reason

    assert ratio(0.3, (0.2, 0.4)) == (2.0, None)
    assert ratio(0.3, None) == (2.0, None)
    assert ratio(0.1, (-0.1, 0.4)) == (
        None,
        "no ratio: the interval of its denominator holds 0; the difference is +0.5",
    )
    assert ratio(0.0, None)[0] is None
    assert ratio(None, None) == (None, "one of the means does not exist")


def test_accuracy_beside_the_published_one(run_cli, image, tmp_path, write):
    path = write('command = "explain"\npublished = [{of = "net", where = {model = 1}, top1 = 0.75}]\n[options]\n'
                 'method = "constant"\ntarget = "true"\n')  # fmt: skip
    (tmp_path / "truth.csv").write_text(f"{image.name},3\n")
    code, out, err = run_cli(
        "explain", image, "--preset", path, "--labels", tmp_path / "truth.csv", "--out", tmp_path / "o"
    )
    assert code == 0, err
    assert re.search(r"0.75 +0 +\S.* 1 +top1, net \(lite0\)|0.75 +0 +- +1 +top1, net \(lite0\)", out)


def test_a_preset_in_the_report(run_cli, image, tmp_path):
    out = tmp_path / "out"
    code, _, err = run_cli("score", image, "--preset", "smo-gini-cifar", "--out", out)
    assert (code, "failed" in err) == (0, False)
    report = json.loads((out / "report.json").read_text())
    stated = load("smo-gini-cifar").stamp() | {"scale": None, "overruled": []}
    assert report["config"]["preset"] == json.loads(json.dumps(stated))
    (record,) = report["records"]
    assert record["method"]["parameters"]["space"] == "normalized"
    assert list(record["scores"]) == ["gini:offset=1e-07"]
    code, _, _ = run_cli("score", image, "--method", "grad:space=normalized", "--metrics", "gini", "--out", out)
    report = json.loads((out / "report.json").read_text())
    assert code == 0
    assert report["config"]["preset"] is None


@needs_data
def test_a_pair_of_trained_twins(run_cli, tmp_path):
    """Noise of variance 0.1 on the picture beside the clean one, for a regular net and its robust twin."""
    out, folder = tmp_path / "out", Path(DATA)
    pair = [folder / "models" / f"cifar10-resnet32{end}.safetensors" for end in ("", "-adv-linf")]
    models = [word for path in pair for word in ("--model", path)]
    code, _, err = run_cli(
        "compare", folder / "cifar10-test.npz", "--limit", "2", "--preset", "sam-noise", *models, "--out", out
    )
    assert code == 0, err
    report = json.loads((out / "report.json").read_text())
    assert report["config"]["preset"]["name"] == "sam-noise"
    assert sorted({round(r["input"]["noise"], 6) for r in report["records"]}) == [0, 0.316228]
    assert {r["method"]["parameters"]["space"] for r in report["records"]} == {"normalized"}
    names = {s["name"] for r in report["records"] for s in r["similarities"]}
    assert names == {"spearman", "hog", "ssim"}


# -- the command line wins -------------------------------------------------------------------------------------------


def planned(run_cli, *args: object) -> dict:
    code, out, err = run_cli("score", *args, "--plan", "--no-cache", "--json", "-")
    assert code == 0, err
    return json.loads(out)


@pytest.fixture
def resolved(run_cli, image, monkeypatch):
    """What a command line comes to: (method expressions, metric expressions), without running it."""
    from attrsens.cli import score as module

    seen = {}

    def stop(values, prepare, show, **more):
        seen.update(values | more)
        return 0

    monkeypatch.setattr(module, "go", stop)

    def call(*args: object) -> dict:
        seen.clear()
        code, _, err = run_cli("score", image, *args)
        assert code == 0, err
        return dict(seen)

    return call


MINE = """
command = "score"
[options]
method = ["sg:n=20,spread=0.3", "grad+smooth:n=7"]
metrics = ["gini:offset=0.5", "insertion,deletion"]
deletion-fill = "black"
space = "normalized"
n = 9
limit = 3
target = [1, "top1"]
calibrate = false
no-fold = true
"""


def test_a_preset_stands_where_the_command_line_is_silent(resolved, write):
    got = resolved("--preset", write(MINE))
    assert got["method"] == ["sg:n=20,spread=0.3", "grad+smooth:n=7"]
    assert got["metrics"] == ["gini:offset=0.5", "insertion,deletion"]
    assert (got["space"], got["n"], got["limit"], got["target"]) == ("normalized", "9", 3, ["1", "top1"])
    assert (got["calibrate"], got["no_fold"], got["only_correct"]) == (False, True, False)
    assert got["metric_parameters"] == {"deletion": {"fill": "black"}}
    assert got["device"] == "auto"


def test_options_that_are_typed_win(resolved, write):
    path = write(MINE)
    got = resolved("--limit", "5", "--target", "3", "--space", "pixel", "--calibrate", "--preset", path)
    assert (got["limit"], got["target"], got["space"], got["calibrate"]) == (5, ["3"], "pixel", True)
    got = resolved("--preset", path, "--deletion-fill", "white")
    assert got["metric_parameters"] == {"deletion": {"fill": "white"}}


def test_a_typed_parameter_wins_over_expressions_of_the_preset(resolved, write):
    """Typed beside typed expressions it would not: there the expression wins."""
    path = write(MINE)
    got = resolved("--preset", path, "--n", "4", "--gini-offset", "0.1")
    assert got["method"] == ["sg:spread=0.3", "grad+smooth:n=7"]
    assert got["n"] == "4"
    assert got["metrics"] == ["gini", "insertion,deletion"]
    assert got["metric_parameters"]["gini"] == {"offset": "0.1"}
    got = resolved("--preset", "sam-accuracy", "--deletion-fill", "black")
    assert got["metrics"] == ["insertion:fill=mean,auc=norm", "deletion:auc=norm"]
    got = resolved("--preset", path, "--n", "4", "--method", "sg:n=2")
    assert got["method"] == ["sg:n=2"]


def test_flags_of_the_preset_fall_away_with_what_they_belong_to(resolved, write):
    path = write(MINE)
    got = resolved("--preset", path, "--method", "grad", "--metrics", "gini")
    assert (got["method"], got["metrics"], got["metric_parameters"]) == (["grad"], ["gini"], {})
    assert "n" not in got  # grad has none
    assert got["space"] == "normalized"  # which grad has
    got = resolved("--preset", path, "--method", "grad", "--n", "3")
    assert got["n"] == "3"  # typed: an error of its own, later


def test_the_planned_passes_follow_the_command_line(run_cli, image):
    full = planned(run_cli, image, "--preset", "hse-ratio", "--no-calibrate")
    less = planned(run_cli, image, "--preset", "hse-ratio", "--no-calibrate", "--method", "sg:n=2")
    assert less["methods"][0].startswith("sg:n=2")
    assert less["backward"] > full["backward"]


def test_without():
    assert without("sg:n=20, spread=0.3+smooth:n=7", {"n"}) == "sg: spread=0.3+smooth:n=7"
    assert without("sg:n=20", {"n", "x"}) == "sg"
    assert without("sg", {"n"}) == "sg"
    assert without("mp:tv_weight=1e+3,steps=4", {"steps"}) == "mp:tv_weight=1e+3"
    assert without("insertion,deletion", {"fill"}) == "insertion,deletion"


# -- errors ----------------------------------------------------------------------------------------------------------

WRONG = {
    'colour = "red"\n' + HEAD: "key 'colour'; did you mean",
    'what = "two\\nlines"\n' + HEAD: "what must be one line",
    "what = 3\n" + HEAD: "what must be text; got 3",
    'command = "scoer"\n[options]\n': "unknown command 'scoer'; did you mean 'score'?",
    "[options]\n": "command is missing",
    'command = "score"\n': "options is missing",
    'command = "score"\noptions = 3\n': "options must be a table; got 3",
    HEAD + 'patch_size = 3\nmethod = "sp"': "unknown option 'patch_size'; did you mean 'patch-size'?",
    HEAD + "limit = 0": "limit: Input should be greater than or equal to 1; got 0",
    HEAD + 'limit = "five"': "limit: Input should be a valid integer",
    HEAD + "limit = [1, 2]": "limit: takes one value; got 2",
    HEAD + 'no-fold = "true"': "no-fold: must be true or false; got 'true'",
    HEAD + "calibrate = 1": "calibrate: must be true or false; got 1",
    HEAD + 'method = "gs"': "method: unknown method 'gs'; did you mean 'sg'?",
    HEAD + 'method = "sg:n=many"': "method: sg: n must be an integer from 0",
    HEAD + 'metrics = ["ginni"]': "metrics: unknown metric 'ginni'; did you mean 'gini'?",
    HEAD + 'deletion-fill = "red"': "deletion-fill: deletion: fill must be one of mean",
    HEAD + "stride = 0": "stride: sp: stride must be an integer of at least 1; got '0'",
    HEAD + "method = []": "method must be text, a finite number, true or false, or a list of them; got []",
    HEAD + "spread = inf": "spread must be text, a finite number",
    HEAD + "limit = 2020-01-01": "limit must be text, a finite number",
    HEAD + "method = [[1]]": "method must be text, a finite number",
    HEAD + "a = 1\na = 2": "no valid TOML",
    "side = 0\n" + HEAD: "side must be an integer from 1 to 10,000; got 0",
    "side = true\n" + HEAD: "side must be an integer from 1 to 10,000; got True",
    'lost = "two\\nlines"\n' + HEAD: "lost must be one line",
    'published = [{of = "a", text = 3}]\n' + HEAD: "got text = 3",
    'published = [{of = "a", where = 3, ssim = 1}]\n' + HEAD: "got where = 3",
    'published = [{of = "a", over = {to = {model = [1]}}, ssim = 1}]\n' + HEAD: "got over = {'to':",
    HEAD + "x = " + "[" * 30000: "no valid TOML: nested too deeply",
    HEAD + "limit = " + "9" * 5000: "no valid TOML: Exceeds the limit",
    b"\xff\xfe": "no UTF-8 text",
    HEAD + "limit = 0x" + "f" * 500: "limit must be text, a finite number",
    HEAD + "limit = 0x" + "f" * 9000: "a finite number, true or false, or a list of them; got a number of thousands",
    "what = 0x" + "f" * 9000 + "\n" + HEAD: "what must be text; got a number of thousands of digits",
    'published = [{of = "grad", ssim = 0x' + "f" * 500 + "}]\n" + HEAD: "published must be text, or rows",
    HEAD + "#" * 70000: "a preset has at most 65,536",
    HEAD + 'arch = "py:os:system"': "arch: a preset runs no code",
    'published = [{ssim = 1}]\n' + HEAD: "published must be text, or rows",
    'published = [{of = "grad", ssim = "high"}]\n' + HEAD: "got ssim = 'high'",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG, ids=lambda t: repr(t)[-30:])
def test_one_line_with_file_and_key(text, write, run_cli, image):
    code, out, err = run_cli("score", image, "--preset", write(text))
    assert (code, out) == (2, "")
    assert err.startswith("attrsens: preset mine.toml: ")
    assert err.count("\n") == 1
    assert WRONG[text] in err
    assert len(err) < 1000


@pytest.mark.parametrize("key", sorted(presets.WITHHELD))
def test_where_results_go_is_not_for_a_preset_to_say(key, write):
    with pytest.raises(AttrsensError, match=f"preset mine.toml: {key}: not for a preset to say"):
        read(write(f"{HEAD}{key} = true"))


def test_names_and_files(run_cli, image, write, tmp_path):
    def message(*args: object) -> str:
        code, _, err = run_cli(*args)
        assert code == 2
        return err

    err = message("score", image, "--preset", "hse-minst")
    assert "unknown preset 'hse-minst'; did you mean 'hse-mnist'?" in err
    assert "the name of a file of yours ends with .toml" in err
    assert "unknown preset '../presets/hse-mnist'" in message("score", image, "--preset", "../presets/hse-mnist")
    assert "preset none.toml: cannot be opened" in message("score", image, "--preset", "none.toml")
    expected = "preset hse-mnist is for 'attrsens score', not for 'attrsens explain'"
    assert expected in message("explain", image, "--preset", "hse-mnist")
    (tmp_path / "folder.toml").mkdir()
    assert "folder.toml: not a regular file" in message("score", image, "--preset", tmp_path / "folder.toml")
    os.mkfifo(tmp_path / "pipe.toml")
    assert "pipe.toml: not a regular file" in message("score", image, "--preset", tmp_path / "pipe.toml")


def test_a_terminal_is_not_written_to_by_a_file(write, run_cli, image):
    _, _, err = run_cli("score", image, "--preset", write('"\\u001b[31m" = 1\n' + HEAD))
    assert "\x1b" not in err


def test_a_preset_of_a_pair_asks_for_two_models(write, run_cli, image):
    path = write('command = "score"\npair = "--model a --model b"\n[options]\nmethod = "grad"\n')
    code, _, err = run_cli("score", image, "--preset", path, "--model", "lite0")
    assert code == 2
    assert "preset mine.toml compares two models, the regular one first: give --model twice, such as --model a" in err
    code, _, err = run_cli("score", image, "--preset", path, "--model", "lite0", "--model", "nonesuch")
    assert "nonesuch" in err


def test_the_pairs_exist():
    from attrsens.models import zoo

    for preset in ALL:
        for name in re.findall(r"--model (\S+)", preset.pair):
            zoo.check_name(name, None)


# -- the list and the page -------------------------------------------------------------------------------------------


def test_list_presets(run_cli):
    code, out, _ = run_cli("list", "presets", "--json", "-")
    rows = json.loads(out)
    assert code == 0
    assert [row["name"] for row in rows] == shipped()
    raw = tomllib.loads((presets.FOLDER / "smo-gini.toml").read_text())
    (row,) = [row for row in rows if row["name"] == "smo-gini"]
    assert all(row[key] == raw[key] for key in ("command", "what", "cost", "published", "options", "source"))
    code, out, _ = run_cli("list", "presets")
    assert code == 0
    for row in rows:
        assert all(row[key] in out for key in ("name", "command", "what", "cost", "source", "question", "follows"))
    assert "grad, regular net: max_sensitivity 0.912, mean_sensitivity 0.849, faithfulness 0.632" in out
    assert "grad: gini 0.56 sd 0.038" in out


def test_the_example_file_of_the_readme_works(write, resolved):
    (text,) = re.findall(r"```toml\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    preset = read(write(text))
    assert preset.numbers() == "grad: gini 0.56 sd 0.04; sg: gini 0.34"
    assert preset.numbers(1) == "grad: gini 0.56 sd 0.04; and 1 more rows"
    got = resolved("--preset", write(text))
    assert (got["method"], got["space"]) == (["grad", "sg:n=50"], "normalized")
    assert METHODS["grad"].parse("space", got["space"]) == "normalized"


def test_presets_are_in_the_package():
    assert Path(attrsens.__file__).parent == presets.FOLDER.parent
    assert {p.suffix for p in presets.FOLDER.iterdir()} == {".toml"}

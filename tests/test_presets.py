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
from attrsens.engine.cell import parse_calls
from attrsens.engine.metrics import parse_metrics
from attrsens.engine.plan import plan
from attrsens.engine.prepare import prepare, prepare_score
from attrsens.engine.prepare_compare import prepare_compare
from attrsens.engine.presets import load, read, shipped, without

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
    assert {"explain", "score", "compare"} == {p.command for p in ALL}


@pytest.mark.parametrize("preset", ALL, ids=lambda p: p.name)
def test_a_shipped_preset_says_everything_and_its_values_parse(preset):
    for key in ("what", "question", "source", "cost", "follows", "published"):
        assert getattr(preset, key), key
    assert len(preset.what) <= 120
    assert re.fullmatch(r"[0-9a-f]{64}", preset.sha256)
    assert len(parse_calls(preset.options["method"], {})) == len(preset.options["method"])
    if "metrics" in preset.options:
        parse_metrics(preset.options["metrics"])
    known = defaults(preset, commands()[preset.command])
    assert known.keys() == {k.replace("-", "_") for k in preset.options}
    assert bool(preset.pair) == (preset.command == "compare")


@pytest.mark.parametrize("preset", [p for p in ALL if not isinstance(p.published, str)], ids=lambda p: p.name)
def test_published_numbers_are_of_what_the_preset_computes(preset):
    computed = {call.name for calls in parse_metrics(preset.options["metrics"]) for call in calls}
    methods = {call.name for call in parse_calls(preset.options["method"], {})}
    low_high = {name: registry[name].traits["range"] for registry in (SCORES, SIMILARITIES) for name in registry}
    for row in preset.published:
        assert set(row) - {"of"} <= computed
        first = re.match(r"\w+", row["of"])[0]
        assert first in methods or len(methods) == 1
        for name, number in row.items():
            if name != "of":
                value = number[0] if isinstance(number, list) else number
                low, high = low_high[name]
                assert low is None or value >= low, row
                assert high is None or value <= high, row


def test_numbers_that_the_papers_print():
    """A few of them, typed anew from the papers' tables."""
    rows = {(p.name, row["of"]): row for p in ALL if not isinstance(p.published, str) for row in p.published}
    assert rows["hse-mnist", "grad, regular net"]["max_sensitivity"] == 0.912
    assert rows["hse-cifar", "ig+smooth, robust net"]["mean_sensitivity"] == 0.521
    assert rows["smo-gini", "grad+softplus"]["gini"] == [0.65, 0.067]
    assert rows["smo-infid-cifar", "CURE"]["infidelity"] == [0.59, 0.34]
    assert rows["bnd-loc", "agi, robust net"]["pp"] == 0.88
    assert rows["bnd-align", "ig to big, ImageNet, robust Linf 8/255"]["alignment"] == 1.45
    assert rows["sam-gbp-cross", "grad of both"]["ssim"] == 0.239
    assert sum(name.startswith("hse-") for name, _ in rows) == 40


@pytest.mark.parametrize("preset", ALL, ids=lambda p: p.name)
def test_the_plan_of_a_preset_on_a_small_net(preset, image):
    """With what fits 16 pixels in place of what fits 224: everything is checked but run."""
    method = [re.sub(r"patch_size=\d+", f"patch_size={3 + i}", m) for i, m in enumerate(preset.options["method"])]
    method = [re.sub(r"^mp:", "mp:mask_side=8,", m) for m in method]
    metrics = [m for m in preset.options.get("metrics", []) if m.split(":")[0].split(",")[0] not in REGIONAL]
    options = {"model": small(), "method": method, "cache": False}
    times = 1
    if preset.command == "compare":
        options["model"] = [small(), small("relu6")]
        noise = {k.replace("-", "_"): v for k, v in preset.options.items() if k.startswith("noise")}
        prepared = prepare_compare(image, metrics=metrics, **noise, **options)
        times = 4 if noise else 2
    elif metrics:
        prepared = prepare_score(image, metrics=metrics, calibrate=False, **options)
    else:
        prepared = prepare(image, **options)
    found = plan(prepared.request, None, prepared.judging)
    assert found.cells == len(method) * times
    assert found.forward >= len(method)


def test_a_preset_in_the_report(run_cli, image, tmp_path):
    out = tmp_path / "out"
    code, _, err = run_cli("score", image, "--preset", "smo-gini-cifar", "--out", out)
    assert (code, "failed" in err) == (0, False)
    report = json.loads((out / "report.json").read_text())
    assert report["config"]["preset"] == load("smo-gini-cifar").stamp()
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

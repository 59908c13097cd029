"""The command line: exit codes, streams, messages, files, the report, and what is imported when."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image as PIL

from attrsens.cli import options
from attrsens.engine import report as report_module
from attrsens.engine.cell import choose_method
from attrsens.engine.report import json_schema
from attrsens.errors import AttrsensError
from attrsens.images import decode
from attrsens.models import zoo
from attrsens.render.table import COLUMNS
from attrsens.samples import sample
from attrsens.spec import METHODS, WRAPPERS, Param

COFFEE, CHELSEA = str(sample("coffee").path), str(sample("chelsea").path)
VALIDATOR = Draft202012Validator(json_schema())


def parsed(text: str | bytes) -> dict:
    """A report, checked against the schema; NaN and Infinity are no JSON."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    data = json.loads(text, parse_constant=refuse)
    VALIDATOR.validate(data)
    return data


def report_in(out: Path) -> dict:
    """The report of a folder, with every file that it names in place."""
    data = parsed((out / "report.json").read_bytes())
    for record in data["records"]:
        for kind in ("png", "npy"):
            name = record["heatmap"][kind]
            assert name is None or (out / name).is_file(), name
    return data


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "attrsens", *map(str, args)]


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def good(tmp_path) -> Path:
    """A picture of a size that any crop fits."""
    path = tmp_path / "good.png"
    PIL.fromarray(np.random.default_rng(0).integers(0, 256, (260, 240, 3), dtype=np.uint8)).save(path)
    return path


# -- the plain case --------------------------------------------------------------------------------------------------


def test_explain_writes_a_picture_and_a_report(run_cli, out):
    code, stdout, stderr = run_cli("explain", COFFEE, "--method", "sg", "--n", "2", "--out", out)
    assert code == 0
    data = report_in(out)
    (record,) = data["records"]
    assert record["image"]["path"] == COFFEE
    assert record["image"]["sha256"] == decode(COFFEE).sha256
    assert record["image"]["size"] == list(decode(COFFEE).size)
    assert record["target"]["label"] == "espresso"
    assert record["target"]["rank"] == 1
    assert record["method"]["parameters"]["n"] == 2
    assert record["passes"] == {"forward": 2, "backward": 2}
    assert data["provenance"]["passes_run"] == {"forward": 3, "backward": 2}
    assert data["failures"] == []
    name = f"heatmaps/coffee.lite0.sg.{record['key'][:8]}.png"
    assert record["heatmap"]["png"] == name
    assert stdout == f"{out / name}\tsg\tespresso (967)\t{record['target']['probability']:.3f}\n"
    assert stderr.startswith("1 maps, 0 from the cache, 3 forward and 2 backward passes, ")
    assert stderr.count("\n") == 1
    assert "\x1b" not in stderr
    assert sorted(p.name for p in out.iterdir()) == ["heatmaps", "report.html", "report.json"]


def test_without_an_image_the_first_sample_and_without_a_method_the_one_with_the_parameter(run_cli, out):
    code, _, _ = run_cli("explain", "--patch-size", "100", "--stride", "100", "--out", out)
    assert code == 0
    (record,) = report_in(out)["records"]
    assert (record["image"]["path"], record["method"]["name"]) == ("sample:chelsea", "sp")
    run_cli("explain", "--out", out)
    (record,) = report_in(out)["records"]
    assert record["method"]["name"] == "grad"


def test_every_image_model_target_and_method_gets_a_record(run_cli, out, tmp_path):
    import torch

    weights = tmp_path / "own.pt"
    torch.save(zoo.lite0().module.state_dict(), weights)
    code, stdout, _ = run_cli(
        *("explain", COFFEE, CHELSEA, "--model", "lite0", "--model", weights, "--arch", "lite0"),
        *("--target", "tabby", "--target", "3", "--target", "281", "--method", "grad", "--method", "sg:n=2"),
        *("--method", "sg:n=3", "--reduce", "sum", "--out", out),
    )
    assert code == 0
    records = report_in(out)["records"]
    found = [
        (Path(r["image"]["path"]).stem, r["model"]["name"], r["target"]["index"], r["method"]["expression"][:6])
        for r in records
    ]
    assert found == [
        (image, model, target, method)
        for image in ("coffee", "chelsea")
        for model in ("lite0", "own")
        for target in (281, 3)
        for method in ("grad:o", "sg:n=2", "sg:n=3")
    ]
    assert {r["method"]["parameters"]["reduce"] for r in records} == {"sum"}
    assert len({r["key"] for r in records}) == len(records) == 24
    assert len({r["heatmap"]["png"] for r in records}) == 24
    assert stdout.count("\n") == 24


def test_json_on_stdout_is_one_document_and_nothing_else(run_cli, out, good, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    code, stdout, stderr = run_cli("explain", good, bad, "--out", out, "--json", "-")
    assert code == 3
    assert parsed(stdout) == report_in(out)
    assert stdout.startswith("{\n") and stdout.endswith("\n}\n")  # noqa: PT018
    assert "bad.png" in stderr


def test_json_goes_to_a_path_too_and_replaces_what_is_there(run_cli, out, tmp_path):
    path = tmp_path / "copy.json"
    path.write_text("something else")
    assert run_cli("explain", COFFEE, "--out", out, "--json", path)[0] == 0
    assert path.read_bytes() == (out / "report.json").read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".attrsens")] == []


def test_quiet_says_nothing_but_errors(run_cli, out, good, tmp_path):
    assert run_cli("explain", good, "-q", "--out", out) == (0, "", "")
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    code, stdout, stderr = run_cli("explain", bad, "--quiet", "--out", out)
    assert (code, stdout) == (3, "")
    assert stderr.startswith("attrsens: ")
    assert stderr.count("\n") == 1


def test_the_schema_that_is_shipped_is_the_one_of_the_types():
    Draft202012Validator.check_schema(json_schema())
    shipped = Path(report_module.__file__).parent / "report.schema.json"
    assert json.loads(shipped.read_text(encoding="utf-8")) == json_schema()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("aggregates"),
        lambda d: d.pop("provenance"),
        lambda d: d.update(schema_version=2),
        lambda d: d["records"][0].pop("attack"),
        lambda d: d["records"][0]["target"].update(index="281"),
        lambda d: d["records"][0]["heatmap"].pop("npy"),
        lambda d: d["provenance"]["passes_run"].pop("forward"),
    ],
)
def test_the_schema_refuses_what_is_no_report(spoil, run_cli, out):
    run_cli("explain", COFFEE, "--out", out)
    data = report_in(out)
    spoil(data)
    assert not VALIDATOR.is_valid(data)


def test_keys_may_be_added_within_a_version(run_cli, out):
    run_cli("explain", COFFEE, "--out", out)
    data = report_in(out)
    data["added"] = data["records"][0]["added"] = data["provenance"]["added"] = 1
    VALIDATOR.validate(data)


# -- files -----------------------------------------------------------------------------------------------------------


def test_arrays_and_tables_hold_what_the_report_says(run_cli, out):
    code, _, _ = run_cli(
        *("explain", COFFEE, CHELSEA, "--method", "grad", "--method", "grad:reduce=none", "--out", out),
        *("--format", "png,npy,csv"),
    )
    assert code == 0
    records = report_in(out)["records"]
    assert [r["heatmap"]["shape"] for r in records] == [[224, 224], [3, 224, 224]] * 2
    for record in records:
        info = record["heatmap"]
        heatmap = np.load(out / info["npy"], allow_pickle=False)
        assert heatmap.dtype == np.float32
        assert list(heatmap.shape) == info["shape"]
        assert float(heatmap.min()) == pytest.approx(info["min"], rel=1e-6)
        assert float(heatmap.max()) == pytest.approx(info["max"], rel=1e-6)
        assert float(heatmap.mean(dtype=np.float64)) == pytest.approx(info["mean"], rel=1e-6, abs=1e-12)
        assert info["min"] < 0 < info["max"]
    grey, colour = (np.load(out / records[i]["heatmap"]["npy"]) for i in (0, 1))
    np.testing.assert_allclose(grey, colour.mean(0), rtol=1e-5, atol=1e-8)
    with (out / "report.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert len(rows) == 4
    for row, record in zip(rows, records, strict=True):
        assert row["key"] == record["key"]
        assert row["image"] == record["image"]["path"]
        assert row["label"] == record["target"]["label"]
        assert row["expression"] == record["method"]["expression"]
        assert float(row["max"]) == record["heatmap"]["max"]
        assert int(row["forward"]) == record["passes"]["forward"]
        assert (row["png"], row["npy"], row["true"]) == (record["heatmap"]["png"], record["heatmap"]["npy"], "")


def test_only_the_formats_asked_for_are_written(run_cli, out):
    assert run_cli("explain", COFFEE, "--out", out, "--format", "npy")[0] == 0
    (record,) = report_in(out)["records"]
    assert record["heatmap"]["png"] is None
    assert sorted(p.suffix for p in (out / "heatmaps").iterdir()) == [".npy"]


FOREIGN = ['{"mine": 1}', "[]", "3", "null", '"schema_version"', '["schema_version"]', "not json", ""]


@pytest.mark.parametrize("content", FOREIGN)
def test_somebody_elses_report_is_not_replaced_without_force(content, run_cli, out):
    out.mkdir()
    theirs = out / "report.json"
    theirs.write_text(content)
    code, stdout, stderr = run_cli("explain", COFFEE, "--out", out)
    assert (code, stdout) == (2, "")
    assert stderr == f"attrsens: out: {theirs} was not written by attrsens; choose another --out, or --force\n"
    assert theirs.read_text() == content
    assert sorted(p.name for p in out.rglob("*.png")) == []


def test_force_replaces_somebody_elses_report_and_a_second_run_its_own(run_cli, out):
    out.mkdir()
    (out / "report.json").write_text('{"mine": 1}')
    (out / "report.csv").write_text("mine")
    arguments = ("explain", COFFEE, "--out", out, "--format", "png,csv")
    assert run_cli(*arguments)[0] == 2
    assert run_cli(*arguments, "--force")[0] == 0
    first = report_in(out)
    assert run_cli("explain", CHELSEA, "--out", out, "--format", "png,csv")[0] == 0
    second = report_in(out)
    assert [r["image"]["path"] for r in second["records"]] == [CHELSEA]
    assert (out / first["records"][0]["heatmap"]["png"]).is_file()  # heatmaps are added


def test_somebody_elses_table_is_not_replaced_without_force(run_cli, out):
    out.mkdir()
    (out / "report.csv").write_text("a,b\n1,2\n")
    assert run_cli("explain", COFFEE, "--out", out)[0] == 0
    code, _, stderr = run_cli("explain", COFFEE, "--out", out, "--format", "csv")
    assert code == 2
    assert "report.csv was not written by attrsens" in stderr
    assert (out / "report.csv").read_text() == "a,b\n1,2\n"


def test_a_full_disk_is_one_line_and_nothing_half_written(run_cli, out, monkeypatch):
    opened = Path.open

    def full(self, mode="r", *args, **kwargs):
        file = opened(self, mode, *args, **kwargs)
        if self.name.startswith(".attrsens-") and mode == "wb":

            def half(parts):
                data = b"".join(parts)
                file.write(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")

            @contextlib.contextmanager
            def cut():
                with file:
                    yield types.SimpleNamespace(writelines=half)

            return cut()
        return file

    monkeypatch.setattr(Path, "open", full)
    code, stdout, stderr = run_cli("explain", COFFEE, "--out", out)
    assert (code, stdout) == (4, "")
    assert stderr.startswith(f"attrsens: {out}/heatmaps/coffee.lite0.grad.")
    assert stderr.endswith(
        " cannot be written (No space left on device); make room or choose another --out; "
        "what is finished is in the cache, so the next run goes on from there\n"
    )
    assert stderr.count("\n") == 1
    assert [p for p in out.rglob("*") if p.is_file()] == []


ODD_NAMES = [
    "line\nbreak.png",
    "<script>alert(1)<script>.png",
    "n" * 200 + ".png",
    "-dash.png",
    "sp ace & 'quote' \"double\".png",
    "\u00e9t\u00e9 \u2603.png",
    "tab\tand\x1b[31mred.png",
]


def test_files_with_odd_names_work(run_cli, out, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    for i, name in enumerate(ODD_NAMES):
        PIL.new("RGB", (40, 40), (i * 20, 100, 50)).save(folder / name)
    PIL.new("RGB", (40, 40)).save(os.fsencode(folder) + b"/latin-\xe9.png")
    code, stdout, stderr = run_cli("explain", folder, "--out", out, "--format", "png,csv")
    assert code == 0
    assert stderr.count("\n") == 1
    data = report_in(out)
    assert len(data["records"]) == len(ODD_NAMES) + 1
    found = {r["image"]["path"].removeprefix(f"{folder}/") for r in data["records"]}
    assert found == {*ODD_NAMES, "latin-\\xe9.png"}
    names = [Path(r["heatmap"]["png"]).name for r in data["records"]]
    assert len(set(names)) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") for name in names)
    assert stdout.count("\n") == len(names)
    with (out / "report.csv").open(newline="", encoding="utf-8") as file:
        assert {row["image"] for row in csv.DictReader(file)} == {r["image"]["path"] for r in data["records"]}


def test_a_folder_is_not_searched_for_the_heatmaps_of_an_earlier_run(run_cli, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "coffee.png").write_bytes(Path(COFFEE).read_bytes())
    monkeypatch.chdir(folder)
    for _ in range(2):  # the default output folder lies inside
        assert run_cli("explain", ".")[0] == 0
        assert [r["image"]["path"] for r in report_in(folder / "attrsens-out")["records"]] == ["coffee.png"]


def test_a_name_that_is_not_utf8_works_on_the_command_line(out, tmp_path):
    path = os.fsencode(tmp_path) + b"/latin-\xe9.png"
    PIL.new("RGB", (40, 40)).save(path)
    words = [w.encode() for w in command("explain", "--out", out, "--json", "-")]
    done = subprocess.run([*words, path], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert parsed(done.stdout)["records"][0]["image"]["path"].endswith("/latin-\\xe9.png")


# -- byte identity, cache, plan --------------------------------------------------------------------------------------

SEVERAL = ("--method", "grad", "--method", "sg:n=2", "--method", "sp:patch_size=112,stride=56", "--target", "3")


def above_provenance(out: Path) -> bytes:
    data = (out / "report.json").read_bytes()
    assert data.count(b'\n "provenance": {') == 1
    return data[: data.index(b'\n "provenance": {')]


def pictures(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted((out / "heatmaps").iterdir())}


def test_results_are_the_same_bytes_however_they_came_about(run_cli, tmp_path):
    cache = tmp_path / "store"
    images = (COFFEE, CHELSEA)

    def run(name: str, *more: object) -> tuple[Path, dict]:
        out = tmp_path / name
        code, _, _ = run_cli(
            *("explain", *images, *SEVERAL, "--format", "png,npy", "--out", out, "--cache-dir", cache, *more)
        )
        assert code == 0
        return out, report_in(out)["provenance"]

    empty, fresh = run("empty")
    assert (fresh["cached_cells"], fresh["passes_run"]) == (0, {"forward": 2 * (1 + 1 + 2 + 10), "backward": 6})
    cached, again = run("cached")
    assert (again["cached_cells"], again["passes_run"]) == (6, {"forward": 0, "backward": 0})
    without, plain = run("without", "--no-cache")
    assert (plain["cached_cells"], plain["passes_run"]) == (0, fresh["passes_run"])
    cells = sorted((cache / "v1").glob("??/*.safetensors"))
    assert len(cells) == 8  # six maps, two predictions
    for cell in cells[::2]:
        cell.unlink()
    maps_left = sum(cell.stat().st_size > 50_000 for cell in cells[1::2])
    resumed, rest = run("resumed")
    assert rest["cached_cells"] == maps_left
    assert 0 < rest["passes_run"]["forward"] < fresh["passes_run"]["forward"]
    for other in (cached, without, resumed):
        assert above_provenance(other) == above_provenance(empty)
        assert pictures(other) == pictures(empty)
    assert len(pictures(empty)) == 12


def test_a_damaged_cell_is_computed_again_and_counted(run_cli, tmp_path):
    cache = tmp_path / "store"
    arguments = ("explain", COFFEE, "--method", "sg:n=2", "--cache-dir", cache)
    run_cli(*arguments, "--out", tmp_path / "a")
    largest = max((cache / "v1").glob("??/*.safetensors"), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[-9] ^= 4
    largest.write_bytes(data)
    code, _, stderr = run_cli(*arguments, "--out", tmp_path / "b")
    assert code == 0
    assert f"cache: {largest} is damaged (hash differs); set aside, the cell is computed again" in stderr
    provenance = report_in(tmp_path / "b")["provenance"]
    assert provenance["damaged_cells"] == 1
    assert provenance["passes_run"] == {"forward": 2, "backward": 2}
    assert above_provenance(tmp_path / "b") == above_provenance(tmp_path / "a")
    assert pictures(tmp_path / "b") == pictures(tmp_path / "a")


def test_sign_and_reduction_cost_no_pass_once_the_map_is_known(run_cli, tmp_path):
    run_cli("explain", COFFEE, "--method", "sg:n=2", "--out", tmp_path / "a")
    run_cli("explain", COFFEE, "--method", "sg:n=2,sign=abs,reduce=max", "--out", tmp_path / "b")
    provenance = report_in(tmp_path / "b")["provenance"]
    assert (provenance["cached_cells"], provenance["passes_run"]) == (1, {"forward": 0, "backward": 0})
    assert report_in(tmp_path / "b")["records"][0]["heatmap"]["min"] >= 0


def test_a_rerun_of_what_is_finished_makes_no_pass_even_where_class_names_are_unknown(
    run_cli, out, good, tmp_path, monkeypatch
):
    import torch

    from attrsens.models.classifier import Classifier

    (tmp_path / "net_of_means.py").write_text(
        "import torch\n"
        "def build():\n"
        "    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 5))\n"
    )
    generator = torch.Generator().manual_seed(0)
    state = {
        "2.weight": torch.rand(5, 3, generator=generator),
        "2.bias": torch.rand(5, generator=generator),
    }
    torch.save(state, tmp_path / "means.pt")
    monkeypatch.syspath_prepend(str(tmp_path))
    batches = []
    network = Classifier._network

    def counted(self, x):
        batches.append(len(x))
        return network(self, x)

    monkeypatch.setattr(Classifier, "_network", counted)
    request = ("explain", good, "--model", tmp_path / "means.pt", "--arch", "py:net_of_means:build", "--target", "4")
    assert run_cli(*request, "--out", out)[0] == 0
    assert batches
    batches.clear()
    assert run_cli(*request, "--out", out)[0] == 0
    sys.modules.pop("net_of_means", None)
    assert report_in(out)["provenance"]["passes_run"] == {"forward": 0, "backward": 0}
    assert batches == []


def test_nothing_is_cached_when_asked_not_to(run_cli, out, tmp_path):
    run_cli("explain", COFFEE, "--no-cache", "--out", out, "--cache-dir", tmp_path / "store")
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "cache").exists()


def test_a_store_that_cannot_be_written_is_one_line_and_the_results_come(run_cli, out, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, stdout, stderr = run_cli("explain", COFFEE, CHELSEA, "--cache-dir", tmp_path / "file", "--out", out)
    assert code == 0
    assert len(report_in(out)["records"]) == 2
    assert stderr.count("cannot be written") == 1
    assert "; results are not kept; use --cache-dir DIR or --no-cache" in stderr
    assert stdout.count("\n") == 2


def test_the_cache_limit_drops_the_oldest(run_cli, out, tmp_path):
    cache = tmp_path / "store"
    run_cli("explain", COFFEE, CHELSEA, "--cache-dir", cache, "--out", out)
    assert len(list(cache.rglob("*.safetensors"))) == 4
    run_cli("explain", COFFEE, "--method", "gi", "--cache-dir", cache, "--cache-limit", "0.0013", "--out", out)
    assert sum(p.stat().st_size for p in cache.rglob("*.safetensors")) <= 1_300_000
    assert len(list(cache.rglob("*.safetensors"))) >= 1


def test_cache_lists_verifies_and_clears(run_cli, out, tmp_path):
    cache = ("--cache-dir", tmp_path / "store")
    run_cli("explain", COFFEE, "--method", "sg:n=2", *cache, "--out", out)
    code, stdout, stderr = run_cli("cache", "ls", *cache)
    assert code == 0
    assert [line.split()[-1].partition(":")[0] for line in sorted(stdout.splitlines(), key=len)] == ["prediction", "sg"]
    assert stderr.startswith("2 cells, 0.6 MB in ")
    rows = json.loads(run_cli("cache", "ls", "--json", "-", *cache)[1])
    assert {row["image"] for row in rows} == {COFFEE}
    assert {len(row["key"]) for row in rows} == {64}
    assert run_cli("cache", "verify", *cache) == (0, "2 sound, 0 damaged\n", "")
    next((tmp_path / "store").rglob("*.safetensors")).write_bytes(b"")
    code, stdout, stderr = run_cli("cache", "verify", "--json", "-", *cache)
    assert (code, json.loads(stdout)) == (0, {"sound": 1, "damaged": 1})
    assert stderr.count("\n") == 1
    assert run_cli("cache", "clear", *cache)[0] == 0
    assert list((tmp_path / "store").rglob("*.safetensors")) == []


@pytest.fixture
def quick_plan(monkeypatch) -> None:
    """Calibration that takes no two seconds."""
    monkeypatch.setattr("attrsens.engine.plan.CALIBRATION", 0.05)


PLANNED = ("grad", "gi:output=prob", "sg:n=3", "ig:steps=4", "ig:steps=3,rule=middle", "sp:patch_size=100,stride=60")


def test_a_plan_counts_what_the_run_then_does_and_writes_nothing(run_cli, out, tmp_path, quick_plan):
    request = ["explain", COFFEE, CHELSEA, "--target", "3", "--target", "tabby", "--out", out]
    for expression in PLANNED:
        request += ["--method", expression]
    before = sorted(tmp_path.rglob("*"))
    code, stdout, stderr = run_cli(*request, "--plan", "--json", "-")
    assert (code, stderr) == (0, "")
    assert sorted(tmp_path.rglob("*")) == before
    plan = json.loads(stdout)
    assert (plan["images"], plan["models"], plan["cells"], plan["cached"]) == (2, 1, 24, 0)
    assert plan["seconds"] > 0
    assert run_cli(*request)[0] == 0
    data = report_in(out)
    assert {k: plan[k] for k in ("forward", "backward")} == data["provenance"]["passes_run"]
    alone = sum(r["passes"]["forward"] for r in data["records"])
    assert plan["unshared"]["forward"] == alone
    assert plan["forward"] <= 2 + alone  # lime and sp explain both classes from the same passes
    assert plan["methods"] == data["config"]["method"]
    plan = json.loads(run_cli(*request, "--plan", "--json", "-")[1])
    assert (plan["cells"], plan["cached"], plan["forward"], plan["backward"]) == (24, 24, 0, 0)


def test_a_plan_for_people_is_a_table(run_cli, out, quick_plan):
    code, stdout, stderr = run_cli("explain", COFFEE, "--method", "sg:n=3", "--plan", "--out", out)
    assert (code, stderr) == (0, "")
    rows = {line[:16].rstrip(): line[16:] for line in stdout.splitlines()}
    assert (rows["images"], rows["forward passes"], rows["backward passes"]) == ("1", "4", "3")
    assert [*rows] == [
        *("images", "models", "methods", "cells", "forward passes", "backward passes", "memory", "expected time")
    ]
    assert not out.exists()


# -- ground truth, failures ------------------------------------------------------------------------------------------


def test_only_correct_leaves_out_what_the_model_gets_wrong(run_cli, out, tmp_path):
    table = tmp_path / "truth.csv"
    table.write_text("file,class\ncoffee.png,espresso\nchelsea.png,goldfish\n")
    code, stdout, stderr = run_cli(
        *("explain", COFFEE, CHELSEA, "--labels", table, "--only-correct", "--target", "true", "--out", out)
    )
    assert code == 0
    data = report_in(out)
    assert [(r["image"]["path"], r["target"]["true"]) for r in data["records"]] == [(COFFEE, 967)]
    assert [(s["image"], s["model"]) for s in data["skipped"]] == [(CHELSEA, "lite0")]
    assert "label is 1" in data["skipped"][0]["reason"]
    assert "1 images left out, 0 failures" in stderr
    assert stdout.count("\n") == 1


def test_the_true_class_may_be_the_target_of_a_wrong_prediction(run_cli, out, tmp_path):
    table = tmp_path / "truth.csv"
    table.write_text("chelsea.png,goldfish\n")
    code, _, _ = run_cli("explain", CHELSEA, "--labels", table, "--target", "true", "--target", "top1", "--out", out)
    assert code == 0
    targets = [r["target"] for r in report_in(out)["records"]]
    assert [t["true"] for t in targets] == [1, 1]
    assert (targets[0]["index"], targets[1]["rank"]) == (1, 1)
    assert targets[0]["rank"] > 1


def test_labels_from_folders(run_cli, out, tmp_path):
    for name in ("967", "goldfish"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "x.png").write_bytes(Path(COFFEE).read_bytes())
    code, _, _ = run_cli("explain", tmp_path / "set", "--labels", "folders", "--only-correct", "--out", out)
    assert code == 0
    data = report_in(out)
    assert (len(data["records"]), len(data["skipped"])) == (1, 1)


def test_broken_images_among_good_ones_are_reported_and_the_rest_is_written(run_cli, out, good, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.png").write_bytes(good.read_bytes())
    (folder / "b.png").write_text("no picture")
    (folder / "c.jpg").write_bytes(Path(COFFEE).read_bytes()[:5000])
    (folder / "d.png").write_bytes(Path(COFFEE).read_bytes())
    code, stdout, stderr = run_cli("explain", folder, "--out", out)
    assert code == 3
    data = report_in(out)
    assert [Path(r["image"]["path"]).name for r in data["records"]] == ["a.png", "d.png"]
    assert [(Path(f["image"]).name, f["stage"]) for f in data["failures"]] == [("b.png", "decode"), ("c.jpg", "decode")]
    errors = [line for line in stderr.splitlines() if line.startswith("attrsens: ")]
    assert len(errors) == 2
    assert all(name in line for name, line in zip(("b.png", "c.jpg"), errors, strict=True))
    assert stdout.count("\n") == 2


def test_when_every_image_is_broken_the_report_says_so(run_cli, out, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no picture")
    code, stdout, _ = run_cli("explain", tmp_path / "a.png", tmp_path / "b.png", "--out", out)
    assert (code, stdout) == (3, "")
    data = report_in(out)
    assert (data["records"], len(data["failures"])) == ([], 2)


def test_a_cell_that_fails_is_not_the_end_of_the_others(run_cli, out, good, tmp_path):
    small = tmp_path / "small.png"
    PIL.new("RGB", (20, 20), (9, 200, 30)).save(small)
    code, _, stderr = run_cli(
        *("explain", small, good, "--preprocess", "resize=none,crop=none", "--out", out),
        *("--method", "sp:patch_size=100,stride=100", "--method", "grad"),
    )
    assert code == 3
    data = report_in(out)
    assert [(Path(r["image"]["path"]).stem, r["method"]["name"]) for r in data["records"]] == [
        ("small", "grad"),
        ("good", "sp"),
        ("good", "grad"),
    ]
    (failure,) = data["failures"]
    assert (failure["stage"], failure["image"], failure["model"]) == ("compute", str(small), "lite0")
    assert failure["method"].startswith("sp:patch_size=100,")
    assert "patch_size 100 is larger than the image, 20 x 20" in failure["message"]
    assert "small.png" in stderr


def test_every_failure_on_stderr_names_its_image(run_cli, out):
    code, _, stderr = run_cli("explain", COFFEE, CHELSEA, "--target", "true", "--out", out)
    assert code == 3
    errors = [line for line in stderr.splitlines() if line.startswith("attrsens: ")]
    assert [name in line for name, line in zip((COFFEE, CHELSEA), errors, strict=True)] == [True, True]


def test_a_label_of_an_archive_that_is_no_class_is_that_images_failure(run_cli, out, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.array([5000, 7, -1]))
    code, _, _ = run_cli("explain", tmp_path / "set.npz", "--target", "true", "--out", out)
    assert code == 3
    data = report_in(out)
    assert [(r["image"]["path"][-2:], r["target"]["index"]) for r in data["records"]] == [("#1", 7)]
    assert [(f["image"][-2:], f["stage"]) for f in data["failures"]] == [("#0", "label"), ("#2", "label")]


def test_a_model_whose_logits_are_not_finite_fails_image_by_image(run_cli, out, good, tmp_path, monkeypatch):
    (tmp_path / "net_of_nan.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.scale = torch.nn.Parameter(torch.ones(1))\n"
        "    def forward(self, x):\n"
        "        y = x.mean((2, 3)) * self.scale\n"
        "        return torch.where(y > 0.9, torch.full_like(y, float('nan')), y)\n"
        "def build():\n"
        "    return Net()\n"
    )
    import torch

    torch.save({"scale": torch.ones(1)}, tmp_path / "nan.pt")
    white = tmp_path / "white.png"
    PIL.new("RGB", (16, 16), "white").save(white)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = ("--model", tmp_path / "nan.pt", "--arch", "py:net_of_nan:build")
    code, _, _ = run_cli("explain", white, good, *model, "--out", out)
    sys.modules.pop("net_of_nan", None)
    assert code == 3
    data = report_in(out)
    assert [r["image"]["path"] for r in data["records"]] == [str(good)]
    (failure,) = data["failures"]
    assert (failure["image"], failure["stage"]) == (str(white), "predict")
    assert "not finite" in failure["message"]


def test_a_note_that_is_no_number_is_null(out, run_cli):
    @METHODS("note_of_a_test", version=1, gradient=False, cost="none")
    def noted(f, x, target):
        """A map with notes."""
        return x, {"gap": float("inf"), "none": None, "one": 1.0}

    try:
        code, _, stderr = run_cli("explain", COFFEE, "--method", "note_of_a_test", "--out", out)
    finally:
        METHODS.remove("note_of_a_test")
    assert code == 0, stderr
    assert report_in(out)["records"][0]["notes"] == {"gap": None, "none": None, "one": 1.0}


# -- messages --------------------------------------------------------------------------------------------------------

SG = "n, spread, seed, output, space, sign, reduce"
MISTAKES = [
    (["--method", "gs"], f"unknown method 'gs'; did you mean 'sg'? methods: {', '.join(METHODS)}"),
    (["--method", ""], f"unknown method ''; methods: {', '.join(METHODS)}"),
    (["--method", "sg:n=-1"], "sg: n must be an integer from 0 to 1,000,000; got '-1'"),
    (["--method", "sg", "--n", "2.5"], "sg: n must be an integer from 0 to 1,000,000; got '2.5'"),
    (["--method", "sp:patch_size=x"], "sp: patch_size must be an integer of at least 1; got 'x'"),
    (["--method", "sp:patch_size=0"], "sp: patch_size must be an integer of at least 1; got '0'"),
    (["--method", "sg:spread=nan"], "sg: spread must be a number of at least 0; got 'nan'"),
    (["--method", "sp:fill=red"], "sp: fill must be one of black, white, grey, mean; got 'red'"),
    (["--method", "grad", "--reduce", "no"], "grad: reduce must be one of mean, sum, max, none; got 'no'"),
    (["--method", "sg", "--stride", "3"], "sg has no parameter 'stride'; methods that have it: sp"),
    (
        ["--method", "grad", "--method", "sg", "--stride", "3"],
        "grad, sg has no parameter 'stride'; methods that have it: sp",
    ),
    (["--method", "sg:m=3"], f"unknown parameter 'm'; sg has: {SG}"),
    (["--method", "sg:n=3,n=4"], "method 'sg:n=3,n=4': n is given twice"),
    (["--method", "sg:n"], "method 'sg:n': cannot read 'n'; write name:parameter=value,..."),
    (["--method", "sg:"], "method 'sg:': cannot read ''; write name:parameter=value,..."),
    (["--method", "grad+smoth"], "unknown wrapper 'smoth'; did you mean 'smooth'? wrappers: smooth, softplus, topk"),
    (
        ["--method", "sp:sign=abs_sample"],
        "sp: sign=abs_sample is for methods that average gradients; sp takes none",
    ),
    (["--method", "sp:patch_size=500"], "sp: patch_size 500 is larger than the image, 224 x 224"),
    (
        ["--method", "ig:baseline=image,baseline_image=none.png"],
        "ig: baseline_image: no file none.png",
    ),
    (
        ["none.png"],
        "none.png: no such file, folder or pattern; 'attrsens list samples' names packaged pictures",
    ),
    (
        ["sample:cofee"],
        "unknown sample 'cofee'; did you mean 'coffee'? samples: chelsea, coffee, camera, flower, china, rocket, "
        "astronaut, hopper, coins, tennis19, tennis84",
    ),
    (
        ["--model", "resnet5O"],
        "unknown model 'resnet5O'; did you mean 'resnet50'? 'attrsens list models' lists them; a file needs its suffix",
    ),
    (["--model", "none.pt", "--arch", "resnet18"], "model: no file none.pt"),
    (
        ["--model", "here.pt"],
        "here.pt: the file is empty",
    ),
    (
        ["--model", "here.pt", "--arch", "resnet81"],
        "unknown architecture 'resnet81'; did you mean 'resnet18'? 'attrsens list models' lists them",
    ),
    (["--target", "tabbi"], "target 'tabbi' is not a class of this model; did you mean tabby (281)?"),
    (["--target", "cardigan"], "target 'cardigan' names classes 264 and 474; give the index"),
    (["--target", "1000"], "target 1000 is out of range: classes are 0 to 999"),
    (["--target", "-1"], "target -1 is out of range: classes are 0 to 999"),
    (["--labels", "none.csv"], "labels: no file none.csv; give a csv of file,class or the word folders"),
    (
        ["--classes", "none.txt"],
        "classes: no file none.txt; give a text file, one name a line, or imagenet or cifar10 or mnist",
    ),
    (["--preprocess", "resize=big"], "preprocess: cannot read resize=big"),
    (
        ["--preprocess", "size=3"],
        "preprocess has no setting 'size'; it has: resize, crop, interp, squash, mean, std, clamp",
    ),
    (["--device", "gpu"], "unknown device 'gpu'; devices: auto, cpu, cuda, cuda:INDEX"),
    (["--format", "png,jpg"], "unknown format 'jpg'; formats: png, npy, csv, junit, md, github"),
    (["--precision", "fp16"], "precision must be fp32 or bf16; got 'fp16'"),
    (["--batch", "0"], "batch must be auto or an integer of at least 1; got '0'"),
    (["--batch", "\u00b2"], "batch must be auto or an integer of at least 1; got '\u00b2'"),
    (["--json", "no/such/x.json"], "no/such/x.json cannot be written: no such folder"),
    (["--json", "folder"], "folder cannot be written: a folder"),
    (["--out", "file"], "out: file cannot be written (Not a directory); choose another --out"),
]


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """A folder with an empty checkpoint, a file and a folder, entered."""
    monkeypatch.chdir(tmp_path)
    for name in ("here.pt", "file"):
        Path(name).touch()
    Path("broken.npz").write_text("no archive")
    Path("folder").mkdir()
    Path("folder/notes.txt").touch()
    return tmp_path


# from typer or from a decoder, whose words may change
PARTLY = [
    (["broken.npz"], "broken.npz: not an npz archive that is read ("),
    (["--nn", "3"], "No such option: --nn"),
    (["--limit", "0"], "Invalid value for '--limit':"),
    (["--limit", "x"], "Invalid value for '--limit':"),
    (["--frame", "-1"], "Invalid value for '--frame':"),
    (["--cache-limit", "-1"], "Invalid value for '--cache-limit':"),
    (["--cache-limit", "inf"], ""),
]


def refusal(run_cli, workplace: Path, arguments: list[str]) -> str:
    """What stderr says of a mistake: one line, exit code 2, nothing on stdout, no file made."""
    before = sorted(workplace.rglob("*"))
    code, stdout, stderr = run_cli("explain", *arguments)
    assert (code, stdout, stderr.count("\n")) == (2, "", 1), stderr
    assert sorted(workplace.rglob("*")) == before
    return stderr


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_a_mistake_is_one_line_before_any_work(arguments, message, run_cli, workplace):
    assert refusal(run_cli, workplace, arguments) == f"attrsens: {message}\n"


@pytest.mark.parametrize(("arguments", "message"), PARTLY, ids=[" ".join(m[0]) for m in PARTLY])
def test_a_mistake_that_others_notice_is_one_line_too(arguments, message, run_cli, workplace):
    assert refusal(run_cli, workplace, arguments).startswith(f"attrsens: {message}")


def test_a_parameter_of_another_method_in_an_expression_names_the_methods_that_have_it(run_cli, workplace):
    stderr = refusal(run_cli, workplace, ["--method", "sg:stride=3"])
    assert stderr.startswith("attrsens: sg has no parameter 'stride'; methods that have it: sp")


def test_a_picture_for_a_parameter_that_is_none_is_a_mistake(run_cli, workplace):
    assert "file" in refusal(run_cli, workplace, ["--method", "ig:baseline=image,baseline_image=file"])


def test_parameters_that_no_single_method_has_need_a_choice(run_cli, workplace):
    assert "choose with --method" in refusal(run_cli, workplace, ["--n", "3", "--stride", "3"])


def test_a_flag_that_several_methods_own_needs_a_choice():
    @METHODS("sp_of_a_test", version=1, gradient=False, cost="1 F")
    def other(f, x, target, *, stride: Annotated[int, Param("step")] = 1):
        """Another method with a stride."""

    try:
        with pytest.raises(AttrsensError) as caught:
            choose_method({"stride": "3"})
    finally:
        METHODS.remove("sp_of_a_test")
    message = "parameter stride: several methods have it: sp, sp_of_a_test; choose with --method"
    assert str(caught.value) == message
    assert choose_method({"stride": "3"}) == "sp"
    assert choose_method({"stride": "3", "sign": "abs", "seed": "1"}) == "sp"
    assert choose_method({"sign": "abs", "seed": "1"}) == "grad"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("folder", "folder: no image in this folder (.png .jpg .jpeg .webp .bmp .tif .tiff .gif .ppm .pgm)"),
        ("*.gif", "*.gif: the pattern matches no file"),
    ],
)
def test_a_folder_or_pattern_that_holds_nothing_is_exit_5(item, message, run_cli, workplace):
    assert run_cli("explain", item) == (5, "", f"attrsens: {message}\n")
    assert not (workplace / "attrsens-out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["list", "method"],
            "unknown list 'method'; did you mean 'methods'? lists: methods, metrics, attacks, models, presets, "
            "recipes, samples",
        ),
        (["list"], "Missing argument"),
        (["explode"], "No such command 'explode'."),
        (["cache", "wipe"], "No such command 'wipe'."),
    ],
)
def test_other_commands_name_mistakes_too(arguments, message, run_cli):
    code, stdout, stderr = run_cli(*arguments)
    assert (code, stdout, stderr.count("\n")) == (2, "", 1)
    assert stderr.startswith(f"attrsens: {message}")


def test_debug_shows_where_an_error_comes_from(run_cli, workplace):
    code, stdout, stderr = run_cli("explain", "none.png", "--debug")
    assert (code, stdout) == (2, "")
    assert stderr.startswith("Traceback (most recent call last):")
    assert stderr.splitlines()[-1].startswith("attrsens: none.png: no such file")


def test_an_internal_error_is_one_line_and_exit_4(run_cli, workplace, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr("attrsens.cli.explain.prepare", fail)
    code, stdout, stderr = run_cli("explain")
    assert (code, stdout) == (4, "")
    assert stderr == "attrsens: internal error: ZeroDivisionError: first line; --debug shows where\n"
    assert "second line" in run_cli("explain", "--debug")[2]


def test_version_and_help(run_cli):
    from importlib.metadata import version

    assert run_cli("--version") == (0, f"attrsens {version('attrsens')}\n", "")
    code, stdout, stderr = run_cli("explain", "-h")
    assert (code, stderr) == (0, "")
    for name in METHODS.parameters():
        assert f"--{name.replace('_', '-')}" in stdout


def test_lists(run_cli):
    code, stdout, stderr = run_cli("list", "methods")
    assert (code, stderr) == (0, "")
    names = [line.split()[0] for line in stdout.splitlines() if line and not line.startswith(" ")]
    assert names == [*METHODS, "Wrappers,", *(f"+{name}" for name in WRAPPERS)]
    rows = json.loads(run_cli("list", "methods", "--json", "-")[1])
    assert [(row["kind"], row["name"], [p["name"] for p in row["parameters"]]) for row in rows] == [
        (registry.kind, name, [h.name for h in registry[name].hypers])
        for registry in (METHODS, WRAPPERS)
        for name in registry
    ]
    assert {row["gradient"] for row in rows if row["kind"] == "wrapper"} == {None}
    models = run_cli("list", "models")[1].split("\n")
    assert models[0].startswith("lite0 ")
    assert any(line.startswith("resnet50 ") for line in models)
    assert json.loads(run_cli("list", "models", "--json", "-")[1])[0]["name"] == "lite0"
    samples = json.loads(run_cli("list", "samples", "--json", "-")[1])
    assert all(Path(row["path"]).is_file() for row in samples)
    assert run_cli("list", "samples")[1].startswith("sample:chelsea ")


def test_every_flag_that_takes_a_word_says_what_it_takes():
    assert len(METHODS.parameters()) > 8
    for name, owners in METHODS.parameters().items():
        annotation = options.flag(name, owners, False)
        help_text = annotation.__metadata__[0].help
        assert "default" in help_text
        assert not re.search(r"\[[a-z#/@]", help_text), f"{name}: rich would take it for markup"


# -- streams and signals ---------------------------------------------------------------------------------------------


def test_progress_off_a_terminal_is_a_plain_line_now_and_then(run_cli, out, monkeypatch):
    monkeypatch.setattr("attrsens.cli.console.EVERY", 0.0)
    request = ("explain", COFFEE, CHELSEA, "--out", out)
    lines = run_cli(*request)[2].splitlines()[:-1]
    assert lines[0] == "explain: 0 of 2 images, 1 passes", "a long map shows that it goes on"
    assert lines[-1] == "explain: 2 of 2 images, 4 passes"
    for option in ("-q", "--no-progress"):
        assert " of 2" not in run_cli(*request, option)[2]
    monkeypatch.setattr("attrsens.cli.console.EVERY", 30.0)
    assert " of 2" not in run_cli(*request)[2]


def test_a_reader_that_leaves_early_is_no_error(tmp_path, out):
    for arguments in (("list", "methods"), ("list", "models"), ("explain", COFFEE, "--out", out, "--json", "-")):
        child = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        child.stdout.close()
        errors = child.stderr.read().decode()
        child.stderr.close()
        assert child.wait(120) == 0
        assert errors == ""
    assert report_in(out)["records"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("list", "samples"), ("list", "models"), ("list", "methods", "--json", "-")])
def test_a_stdout_that_is_full_is_one_line_and_exit_4(arguments):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command(*arguments), stdout=full, stderr=subprocess.PIPE, timeout=120, text=True)
    assert done.returncode == 4
    assert done.stderr == "attrsens: stdout cannot be written (No space left on device)\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_stdout_does_not_lose_the_report(out):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("explain", COFFEE, "--out", out, "--json", "-"), stdout=full, stderr=subprocess.PIPE, timeout=120
        )
    assert done.returncode == 4
    assert done.stderr.decode() == "attrsens: stdout cannot be written (No space left on device)\n"
    assert len(report_in(out)["records"]) == 1


def test_a_stdout_that_was_never_open_is_no_traceback():
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *command("list", "samples")],
        stderr=subprocess.PIPE,
        timeout=120,
        text=True,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 4)


def wait_for(condition, child: subprocess.Popen, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < until, "nothing happens"
        time.sleep(0.02)


def test_an_interrupt_leaves_a_valid_report_of_what_is_finished(out, tmp_path, run_cli):
    small = tmp_path / "small.png"
    PIL.new("RGB", (40, 40), (9, 200, 30)).save(small)
    request = ("--preprocess", "resize=none,crop=none", "--method", "sp", "--stride", "3", "--out", out)
    child = subprocess.Popen(
        command("explain", small, COFFEE, *request), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: list(out.glob("heatmaps/small.*.png")), child)  # the second image takes minutes
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    stdout, stderr = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1] == f"attrsens: interrupted; 1 finished results are in {out}"
    data = report_in(out)
    assert data["provenance"]["interrupted"] is True
    assert [r["image"]["path"] for r in data["records"]] == [str(small)]
    assert data["failures"] == []
    assert stdout.count("\n") == 1
    # what was finished is kept
    code, _, _ = run_cli("explain", small, *request)
    data = report_in(out)
    assert code == 0
    assert data["provenance"]["interrupted"] is False
    assert data["provenance"]["passes_run"] == {"forward": 0, "backward": 0}


def test_an_interrupt_between_the_methods_of_one_image_keeps_those_that_are_finished(run_cli, out, monkeypatch):
    from attrsens.explainer import Explainer

    raw = Explainer.raw

    def interrupt(self, pixels):
        if self.spec.name == "gi" and not self.dry:
            raise KeyboardInterrupt
        return raw(self, pixels)

    monkeypatch.setattr(Explainer, "raw", interrupt)
    code, stdout, stderr = run_cli("explain", COFFEE, "--method", "grad", "--method", "gi", "--out", out)
    assert code == 130
    data = report_in(out)
    assert data["provenance"]["interrupted"] is True
    assert [r["method"]["name"] for r in data["records"]] == ["grad"]
    assert stdout.count("\n") == 1
    assert stderr.endswith(f"attrsens: interrupted; 1 finished results are in {out}\n")


def test_an_interrupt_with_json_on_stdout_still_gives_one_document(run_cli, out, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("attrsens.engine.run.predict", interrupt)
    code, stdout, _ = run_cli("explain", COFFEE, "--out", out, "--json", "-")
    assert code == 130
    assert parsed(stdout)["provenance"]["interrupted"] is True
    assert parsed(stdout) == report_in(out)


def test_an_interrupt_before_the_work_is_one_line(run_cli, out, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("attrsens.cli.explain.prepare", interrupt)
    assert run_cli("explain", COFFEE, "--out", out) == (130, "", "attrsens: interrupted\n")


# -- what is imported ------------------------------------------------------------------------------------------------

PROBE = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from attrsens.cli import run
found = []
for arguments in json.loads(sys.argv[1]):
    with redirect_stdout(io.TextIOWrapper(io.BytesIO())), redirect_stderr(io.StringIO()) as errors:
        code = run(arguments)
    loaded = sorted({"torch", "torchvision", "timm", "scipy", "matplotlib"} & set(sys.modules))
    found.append([arguments, code, loaded, errors.getvalue()])
print(json.dumps(found))
"""


def probe(*calls: list[str], cwd: Path) -> list[list]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(calls)], capture_output=True, text=True, timeout=120, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_help_lists_and_usage_errors_import_no_torch(workplace):
    fine = [
        *(["--help"], ["--version"], ["explain", "--help"], ["list", "--help"], ["doctor", "--help"]),
        *(["list", "methods"], ["list", "models"], ["list", "samples"], ["list", "models", "--json", "-"]),
        *(["list", "methods", "--json", "-"], ["cache", "ls"], ["cache", "verify"], ["cache", "clear"]),
    ]
    wrong = [
        *(["--method", "gs"], ["--method", "sg:n=-1"], ["--n", "x"], ["--method", "sg", "--stride", "3"]),
        *(["--method", "sg:stride=3"], ["none.png"], ["sample:cofee"], ["broken.npz"], ["--model", "resnet5O"]),
        *(["--model", "none.pt"], ["--model", "here.pt", "--arch", "resnet81"]),
        *(["--labels", "none.csv"], ["--limit", "0"], ["--nn"], ["--batch", "0"], ["--precision", "fp16"]),
        *(["--json", "no/such/x.json"], ["--method", "ig:baseline=image,baseline_image=none.png"]),
    ]
    empty = [["folder"], ["*.gif"]]
    doctor = [["lite0", "--preprocess", "bogus=1"], ["lite0", "--classes", "nofile"], ["lite0", "--arch", "resnet50"]]
    doctor += [["resnet5O"], ["timm/resnet5O"], ["robust/resnet50-l2-eps7"], ["lite0+soft"], ["lite0", "--sha256", "a"]]
    calls = [*fine, *(["explain", *c] for c in wrong), *(["doctor", *c] for c in doctor)]
    calls += [["explain", *c] for c in empty]
    expected = [0] * len(fine) + [2] * (len(wrong) + len(doctor)) + [5] * len(empty)
    found = probe(*calls, cwd=workplace)
    assert [(call, code) for call, code, _, _ in found] == list(zip(calls, expected, strict=True))
    assert [call for call, _, loaded, _ in found if loaded] == []
    assert not (workplace / "attrsens-out").exists()


@pytest.mark.parametrize(
    "arguments",
    [["--preprocess", "size=3"], ["--format", "jpg"], ["--device", "gpu"], ["--classes", "none.txt"]],
    ids=" ".join,
)
def test_bad_values_of_other_options_import_no_torch_either(arguments, workplace):
    ((_, code, loaded, _),) = probe(["explain", *arguments], cwd=workplace)
    assert (code, loaded) == (2, [])


def test_a_default_run_imports_neither_torchvision_nor_timm(tmp_path):
    ((_, code, loaded, errors),) = probe(
        ["explain", COFFEE, "--method", "grad", "--no-cache", "--out", str(tmp_path / "out")], cwd=tmp_path
    )
    assert code == 0, errors
    assert loaded == ["torch"]


def complete(words: str, count: int) -> tuple[list[str], bool]:
    """(completions, whether torch was imported)."""
    script = (
        "import sys\n"
        "from attrsens.cli import run\n"
        "code = run([])\n"
        "sys.stdout.flush()\n"
        "sys.stderr.write(f'{code} {\"torch\" in sys.modules}')\n"
    )
    environment = {
        **os.environ,
        "_ATTRSENS_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(count),
    }
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    code, _, torch = done.stderr.partition(" ")
    assert code == "0"
    return done.stdout.split(), torch == "True"


@pytest.mark.parametrize(
    ("words", "count", "expected"),
    [
        ("attrsens explain --method s", 3, {name for name in METHODS if name.startswith("s")}),
        ("attrsens explain --method ", 3, set(METHODS)),
        ("attrsens explain --model resnet1", 3, {"resnet18", "resnet101", "resnet152"}),
        ("attrsens explain --model robust/densenet", 3, {"robust/densenet-l2-eps0", "robust/densenet-l2-eps3"}),
        ("attrsens list m", 2, {"methods", "metrics", "models"}),
        ("attrsens ex", 1, {"explain"}),
        ("attrsens explain --patch", 2, {"--patch-size"}),
        ("attrsens explain sample:te", 2, {"sample:tennis19", "sample:tennis84"}),
    ],
)
def test_completion_needs_no_torch(words, count, expected):
    found, torch = complete(words, count)
    assert set(found) == expected
    assert not torch


def test_the_module_runs_as_a_program(out):
    done = subprocess.run(
        command("explain", "sample:coffee", "--out", out, "--json", "-"), capture_output=True, timeout=120
    )
    assert done.returncode == 0
    data = parsed(done.stdout)
    assert data["provenance"]["argv"][1:3] == ["explain", "sample:coffee"]
    assert io.BytesIO(done.stdout).read() == (out / "report.json").read_bytes()

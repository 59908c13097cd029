"""`attrsens train`: data sets, files, the model card on its way back, messages and exit codes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PIL
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import attrsens
from attrsens.cli import run as run_cli
from attrsens.engine.datasets import read_dataset
from attrsens.engine.report import ORDER
from attrsens.engine.train import request
from attrsens.errors import AttrsensError, NothingFound
from attrsens.images import Preprocess
from attrsens.models.cards import FORMAT, read_card, write_card
from attrsens.models.nets import find_net
from attrsens.spec import Spec
from attrsens.training import COMMON, RECIPES
from attrsens.training.run import Trainer

QUICK = ("--arch", "preact-resnet8", "--epochs", "1", "--batch", "16", "--attacked", "8", "--precision", "fp32")
Run = Callable[..., tuple[int, str, str]]


def pictures(count: int = 40, side: int = 16, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % classes
    images = np.random.Generator(np.random.Philox(1)).integers(0, 120, (count, side, side, 3))
    return (images + labels[:, None, None, None] * 60).astype(np.uint8), labels


@pytest.fixture
def npz(tmp_path: Path) -> str:
    images, labels = pictures()
    np.savez(tmp_path / "dots.npz", images=images, labels=labels, classes=np.array(["dark", "light"]))
    return str(tmp_path / "dots.npz")


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = run_cli([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


# -- data sets ---------------------------------------------------------------------------------------------------------


def test_a_folder_by_class_and_an_npz_are_the_same_data(tmp_path: Path, npz: str) -> None:
    images, labels = pictures()
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "root" / ("dark", "light")[label] / "deeper"
        folder.mkdir(parents=True, exist_ok=True)
        PIL.fromarray(image).save(folder / f"{i:03d}.png")
    found, archived = read_dataset(str(tmp_path / "root")), read_dataset(npz)
    assert found.classes == archived.classes == ("dark", "light")
    dark, light = (archived.images[archived.labels == c] for c in (0, 1))
    assert np.array_equal(found.images, np.concatenate([dark, light]))  # sorted by folder
    assert found.sha256 != archived.sha256
    assert read_dataset(npz, limit=10).images.shape == (10, 16, 16, 3)


def test_pictures_of_several_sizes_want_a_size(tmp_path: Path) -> None:
    for name, size in (("a", (40, 20)), ("b", (30, 30))):
        (tmp_path / "root" / name).mkdir(parents=True)
        PIL.new("L", size, 100).save(tmp_path / "root" / name / "x.png")
    with pytest.raises(AttrsensError, match=r"x.png is 40 x 20; say with --size"):
        read_dataset(str(tmp_path / "root"))
    assert read_dataset(str(tmp_path / "root"), size=16).images.shape == (2, 16, 16, 3)  # grey became colour
    PIL.new("L", (30, 30)).save(tmp_path / "root" / "loose.png")
    with pytest.raises(AttrsensError, match="lies in no class"):
        read_dataset(str(tmp_path / "root"), size=16)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": pictures()[0]}, "needs an array of labels"),
        ({"images": pictures()[0], "labels": pictures()[1] - 1}, "labels from -1 to 0"),
        ({"images": pictures()[0], "labels": pictures()[1], "classes": np.array(["a"])}, "for 1 classes"),
        ({"images": pictures()[0], "labels": pictures()[1], "classes": np.zeros(2)}, "must be a list of names"),
        ({"images": pictures()[0], "labels": pictures()[1] * 0}, "1 class; at least two"),
        ({"images": np.zeros((2, 100, 100, 3), np.uint8), "labels": np.array([0, 1])}, "100 x 100; say with --size"),
        ({"images": pictures()[0], "labels": pictures()[1] * 10**9}, "has label 1000000000; labels are indices of at"),
        ({"images": pictures()[0], "labels": np.full(40, 2**64 - 1, np.uint64)}, "has label 18446744073709551615"),
        ({"images": pictures()[0], "labels": pictures()[1], "classes": np.array([str(i) for i in range(10_001)])},
         "10,001 classes; at least two are needed, and 10,000 at most"),
        ({"images": pictures()[0], "labels": pictures()[1], "classes": np.array(["a", "b", "a"])},
         "several of its classes are called 'a'"),
    ],
)  # fmt: skip
def test_what_a_data_set_has_to_be(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "odd.npz", **arrays)
    with pytest.raises(AttrsensError, match=message):
        read_dataset(str(tmp_path / "odd.npz"))


def test_a_limit_takes_pictures_from_every_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("attrsens").propagate = True
    root = tmp_path / "root"
    for c, name in enumerate("abc"):
        (root / name).mkdir(parents=True)
        for i in range(5 - c):
            PIL.new("RGB", (8, 8), (40 * c, i, 0)).save(root / name / f"{i}.png")
    data = read_dataset(str(root), limit=7)
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert data.images[:, 0, 0, 1].tolist() == [0, 1, 2, 0, 1, 0, 1]  # the first of each
    assert read_dataset(str(root), limit=2).classes == ("a", "b", "c")
    assert read_dataset(str(root), limit=99).sha256 == read_dataset(str(root)).sha256
    assert not caplog.records
    (root / "empty").mkdir()
    (root / ".git").mkdir()
    assert read_dataset(str(root)).classes == ("a", "b", "c")
    assert [r.getMessage().partition(": ")[2] for r in caplog.records] == [
        "no picture in its folder empty, which is no class then"
    ]


def test_an_empty_folder_is_nothing_found(tmp_path: Path) -> None:
    with pytest.raises(NothingFound):
        read_dataset(str(tmp_path))


def test_cifar10_is_never_downloaded_offline() -> None:
    with pytest.raises(AttrsensError, match="--offline forbids its download"):
        read_dataset("cifar10", offline=True)


# -- files, and the way back -------------------------------------------------------------------------------------------


def test_what_comes_out_is_a_model_that_needs_no_arch(npz: str, tmp_path: Path, cli: Run) -> None:
    out = tmp_path / "nets"
    code, told, noted = cli("train", npz, "--recipe", "fast", "--eps", "4/255", *QUICK, "--out", out, "--name", "n")
    assert code == 0, noted
    rows = [line.split("\t") for line in told.splitlines()]
    assert [(r[1], r[2]) for r in rows] == [("clean", ""), ("PGD-20", "linf:0.01569"), ("AutoPGD", "linf:0.01569")]
    assert "n trained (" in noted
    assert sorted(p.name for p in out.glob("n.*")) == ["n.json", "n.md", "n.safetensors"]

    f = attrsens.load(str(out / "n.safetensors"), device="cpu", fold=False)
    data = read_dataset(npz)
    seen, _ = data.split(1, 0)
    mean, std = seen.statistics()
    assert f.classes == ["dark", "light"]
    assert f.architecture == "preact-resnet8"
    assert f.preprocess.crop == 16
    assert (f.preprocess.mean, f.preprocess.std) == (mean, std)
    module = find_net("preact-resnet8").build(2).eval()
    module.load_state_dict(load_file(out / "n.safetensors"))
    x = torch.from_numpy(data.images[:3]).permute(0, 3, 1, 2) / 255
    plain = module((x - torch.tensor(mean).reshape(-1, 1, 1)) / torch.tensor(std).reshape(-1, 1, 1))
    assert torch.allclose(f.logits(x), plain.detach(), atol=1e-5)
    assert torch.allclose(attrsens.load(str(out / "n.safetensors"), device="cpu").logits(x), plain, atol=1e-4)  # folded

    report = json.loads((out / "n.json").read_text())
    card = read_card(out / "n.safetensors")
    assert card is not None
    assert card.told == report["model"]
    assert card.told["recipe"]["parameters"]["eps"] == 4 / 255
    assert card.told["data"] == {"name": "dots", "sha256": data.sha256, "images": 39, "held_out": 1}
    assert [a["kind"] for a in report["accuracy"]] == ["clean", "PGD-20", "AutoPGD"]
    assert set(report["curves"][0]) == {"epoch", "loss", "clean", "adversarial", "guarded"}
    text = (out / "n.md").read_text()
    assert data.sha256 in text
    assert "| PGD-20 | linf 4/255 | 1 |" in text
    assert "preact-resnet8" in text


def test_a_finished_training_is_not_done_again(
    npz: str, tmp_path: Path, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("train", npz, *QUICK, "--out", tmp_path, "--name", "n")
    assert cli(*call)[0] == 0
    before = {p.name: p.read_bytes() for p in tmp_path.glob("n.*")}
    monkeypatch.setattr(Trainer, "run", lambda self: pytest.fail("trained again"))
    code, told, noted = cli(*call, "--json", "-")
    assert (code, noted) == (0, "")
    assert json.loads(told)["provenance"]["fresh"] is False
    code, _, noted = cli(*call)
    assert code == 0
    assert "n was trained already, nothing was done; --force trains it anew" in noted
    assert before == {p.name: p.read_bytes() for p in tmp_path.glob("n.*")}
    code, _, noted = cli(*call, "--seed", "1")
    assert code == 2
    assert "n.safetensors is of another training; choose another --out or --name, or --force" in noted
    monkeypatch.undo()
    assert cli(*call, "--budget", "l2:0.5")[0] == 2  # another adversary watches: that is another training
    code, told, _ = cli(*call, "--budget", "linf:2/255", "--budget", "l2:0.5")  # measured anew, not trained anew
    assert code == 0
    assert len(told.splitlines()) == 5
    assert load_file(tmp_path / "n.safetensors").keys() == find_net("preact-resnet8").build(2).state_dict().keys()
    code, told, _ = cli(*call, "--seed", "1", "--force", "-q")
    assert (code, told) == (0, "")


def test_other_class_names_or_pictures_to_measure_on_are_another_thing(npz: str, tmp_path: Path, cli: Run) -> None:
    images, labels = pictures()
    val = tmp_path / "val.npz"
    np.savez(val, images=images[:10], labels=labels[:10], classes=np.array(["dark", "light"]))
    call = ("train", npz, *QUICK, "--out", tmp_path, "--name", "n", "--val", val, "--json", "-")
    first = json.loads(cli(*call)[1])
    (tmp_path / "n.checkpoint").write_bytes(b"left by a kill between the report and its removal")
    assert json.loads(cli(*call)[1]) == {**first, "provenance": {**first["provenance"], "fresh": False}}
    assert not (tmp_path / "n.checkpoint").exists()
    weights = load_file(tmp_path / "n.safetensors")

    np.savez(val, images=images[:20], labels=labels[:20], classes=np.array(["dark", "light"]))
    # what the card says of the making stays, whoever measures
    state, card = load_file(tmp_path / "n.safetensors"), dict(first["model"])
    card |= {"threads": 77, "device": "cuda", "versions": {"attrsens": "0.0.1", "torch": "2.11.0"}}
    fall = {"epoch": 1, "accuracy": 0.0, "best": 0.5, "from_step": 0, "recipe": "pgd", "steps": 2}
    card["recipe"] = {**card["recipe"], "fallbacks": [fall]}
    save_file(state, tmp_path / "n.safetensors", write_card(card))
    second = json.loads(cli(*call)[1])
    assert second["provenance"]["fresh"]
    assert second["model"]["validation"]["images"] == 20
    assert [row["n"] for row in second["accuracy"]] == [20, 8, 8]
    kept = ("threads", "device", "versions", "recipe", "data", "identity")
    assert {k: second["model"][k] for k in kept} == {k: card[k] for k in kept}
    assert second["fallbacks"] == [fall]
    assert second["curves"] == first["curves"]
    assert all(torch.equal(weights[n], t) for n, t in load_file(tmp_path / "n.safetensors").items())

    for path in (Path(npz), val):
        np.savez(path, images=images, labels=labels, classes=np.array(["light", "dark"]))
    code, _, noted = cli(*call)
    assert code == 2
    assert "n.safetensors is of another training" in noted


def test_the_report_has_the_shape_of_all_commands(npz: str, tmp_path: Path, cli: Run) -> None:
    call = ("train", npz, *QUICK, "--out", tmp_path, "--name", "n", "--limit", "30", "--held-out", "3")
    assert cli(*call, "-q")[0] == 0
    report = json.loads((tmp_path / "n.json").read_text())
    assert set(ORDER) <= set(report)
    asked = {"size": None, "limit": 30, "held_out": 3, "classes": None, "precision": "fp32", "device": "cpu"}
    assert {k: report["config"][k] for k in asked} == asked
    ran = report["provenance"]
    assert ran["versions"]["torch"] == version("torch")
    assert ran["threads"] == torch.get_num_threads()
    assert isinstance(ran["argv"], list)
    assert datetime.fromisoformat(ran["started"]).tzinfo
    assert (ran["device"], ran["interrupted"]) == ("cpu", False)


def test_files_of_others_are_not_replaced(npz: str, tmp_path: Path, cli: Run) -> None:
    call = ("train", npz, *QUICK, "--out", tmp_path, "--name", "n", "-q")
    for suffix, text in ((".md", "# n\n\nmy notes\n"), (".json", '{"command": "explain"}'), (".json", "[" * 10**5)):
        (tmp_path / f"n{suffix}").write_text(text)
        code, _, noted = cli(*call)
        assert code == 2
        assert noted == (
            f"attrsens: {tmp_path}/n{suffix} was not written by attrsens train; choose another --name or --out, or "
            "--force to replace it\n"
        )
        assert (tmp_path / f"n{suffix}").read_text() == text
        (tmp_path / f"n{suffix}").unlink()
    (tmp_path / "n.md").write_text("my notes\n")
    assert cli(*call, "--force")[0] == 0
    assert cli(*call)[0] == 0  # they are ours now
    assert cli(*call, "--force")[0] == 0


@pytest.mark.parametrize("suffix", [".safetensors", ".md", ".json", ".checkpoint"])
def test_a_folder_in_the_way_is_seen_before_any_work(suffix: str, npz: str, tmp_path: Path, cli: Run) -> None:
    (tmp_path / f"n{suffix}").mkdir()
    for more in ((), ("--force",)):
        code, _, noted = cli("train", npz, *QUICK, "--out", tmp_path, "--name", "n", *more)
        assert (code, noted) == (
            2, f"attrsens: {tmp_path}/n{suffix} cannot be written (a folder); choose another --name or --out\n"
        )  # fmt: skip


def test_a_default_name_is_always_one(npz: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("my pics", "-x-", "..."):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "my pics")
    names = {".": "my-pics-std", npz: "dots-std", "../my pics": "my-pics-std", "../-x-": "x--std", "/": "data-std"}
    assert {given: request(given).name for given in names} == names


def test_cure_goes_on_from_a_network(npz: str, tmp_path: Path, cli: Run) -> None:
    assert cli("train", npz, *QUICK, "--out", tmp_path, "--name", "first", "-q")[0] == 0
    first = tmp_path / "first.safetensors"
    quick = [word for word in QUICK if word not in ("--arch", "preact-resnet8")]
    code, told, noted = cli("train", npz, "--recipe", "cure", "--from", first, *quick, "--out", tmp_path, "--json", "-")
    assert code == 0, noted
    report = json.loads(told)
    assert report["model"]["start"]["name"] == "first"
    assert report["model"]["architecture"] == "preact-resnet8"
    assert report["files"]["model"] == "dots-cure.safetensors"
    a, b = load_file(first), load_file(tmp_path / "dots-cure.safetensors")
    assert not torch.equal(a["linear.weight"], b["linear.weight"])
    steps = [read_card(path).preprocess for path in (first, tmp_path / "dots-cure.safetensors")]  # type: ignore[union-attr]
    assert steps[0] == steps[1]
    card = read_card(first)
    assert card is not None
    save_file(a, first, write_card({**card.told, "preprocess": {**card.told["preprocess"], "mean": [0.1, 0.2, 0.3]}}))
    code, _, noted = cli("train", npz, "--recipe", "cure", "--from", first, *quick, "--out", tmp_path)
    assert (code, "dots-cure.safetensors is of another training" in noted) == (2, True)  # it saw other numbers
    code, _, noted = cli("train", npz, "--recipe", "cure", "--from", "lite0", *quick, "--out", tmp_path, "--name", "x")
    assert code == 2
    assert "from lite0: made for 1000 classes at 224 px; the data set has 2 at 16 px" in noted


def test_python_can_train_too(npz: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"arch": "preact-resnet8", "attacked": 4, "precision": "fp32"}
    found = attrsens.train(npz, "std", epochs=1, batch=16, out=tmp_path, val=npz, **settings)
    assert found.fresh
    assert found.model["validation"]["images"] == 40
    assert [row["n"] for row in found.accuracy] == [40, 4, 4]
    assert not attrsens.train(npz, "std", epochs=1, batch=16, out=tmp_path, val=npz, **settings).fresh


def hostile(tmp_path: Path, **changes: Any) -> Path:
    card = {
        "architecture": "preact-resnet8",
        "classes": ["a", "b"],
        "preprocess": {"resize": 16, "crop": 16, "interp": "bilinear", "squash": False, "clamp": False,
                       "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
    }  # fmt: skip
    state = find_net("preact-resnet8").build(2).state_dict()
    save_file(state, tmp_path / "m.safetensors", {FORMAT: json.dumps(card | changes)})
    return tmp_path / "m.safetensors"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "py:os:getcwd"}, "its architecture is no name"),
        ({"architecture": "resnet-nothing"}, "unknown architecture 'resnet-nothing'"),
        ({"architecture": 3}, "its architecture is no name"),
        ({"classes": ["a", "b", "c"]}, "names 3 classes; it has 2"),
        ({"classes": "ab"}, "its classes are no list of names"),
        ({"preprocess": {}}, "its model card cannot be read"),
        ({"preprocess": {"resize": "x", "crop": 1, "interp": "bilinear", "squash": False, "clamp": False,
                         "mean": [0], "std": [1]}}, "its sides are no integers"),
        ({"preprocess": {"resize": 8, "crop": 8, "interp": "bilinear", "squash": False, "clamp": False,
                         "mean": [0], "std": [0]}}, "std must be above 0"),
    ],
)  # fmt: skip
def test_a_card_is_read_as_data_from_a_stranger(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert attrsens.load(str(hostile(tmp_path)), device="cpu").classes == ["a", "b"]
    with pytest.raises(AttrsensError, match=message):
        attrsens.load(str(hostile(tmp_path, **changes)), device="cpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "maximum recursion depth exceeded"),
        (lambda card: card["preprocess"].update(mean=[10**400] * 3), "int too large to convert to float"),
        (lambda card: card.update(classes=["a", "\ud800"]), "surrogates not allowed"),
        (lambda card: card.update(classes=["a" * 10**6, "b" * 10**5]), "a header of 1,1[0-9,]+ bytes; 1 MiB at most"),
    ],
)
def test_a_card_that_was_made_to_hurt_is_one_line(
    text: str | Callable[[dict[str, Any]], object], message: str, tmp_path: Path, cli: Run
) -> None:
    path = hostile(tmp_path)
    if not isinstance(text, str):
        with safe_open(path, framework="pt") as file:
            card = json.loads(file.metadata()[FORMAT])
        text(card)
        text = json.dumps(card)
    save_file(load_file(path), path, {FORMAT: text})
    with pytest.raises(AttrsensError, match=rf"m.safetensors: its model card cannot be read \(.*{message}"):
        attrsens.load(str(path), device="cpu")


def test_large_headers_without_a_card_and_cards_that_are_too_long(tmp_path: Path) -> None:
    save_file({f"{'n' * 1000}{i}": torch.zeros(1) for i in range(1100)}, tmp_path / "x.safetensors", {"format": "pt"})
    assert read_card(tmp_path / "x.safetensors") is None
    told = {"architecture": "preact-resnet8", "preprocess": Preprocess(8, 8).describe(), "classes": ["a", "b"]}
    assert json.loads(write_card(told)[FORMAT]) == told
    with pytest.raises(AttrsensError, match=r"a model card of 6[0-9,]+ bytes is too long; 2 classes want"):
        write_card({**told, "classes": ["a" * 300_000, "b" * 300_000]})
    with pytest.raises(AttrsensError, match="its classes are no list of names"):
        write_card({**told, "classes": ["a"]})


def test_shapes_are_compared_before_weights_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hostile(tmp_path, architecture="regnet_y_400mf")  # whose widths are computed with tensors
    for name in ("normal_", "uniform_"):
        monkeypatch.setattr(torch.Tensor, name, lambda *a, **k: pytest.fail("drawn"))
    with pytest.raises(AttrsensError, match="weights do not fit the architecture"):
        attrsens.load(str(path), device="cpu")


def test_names_of_classes_cannot_write_the_card_for_people(tmp_path: Path, cli: Run) -> None:
    images, labels = pictures()
    names = np.array(["a\n| hacked | row |", "b\x1b[31m<script>"])
    np.savez(tmp_path / "d.npz", images=images, labels=labels, classes=names)
    assert cli("train", tmp_path / "d.npz", *QUICK, "--out", tmp_path, "--name", "n", "-q")[0] == 0
    text = (tmp_path / "n.md").read_text()
    assert "| classes | a?\\| hacked \\| row \\|, b?\\[31m\\<script\\> |" in text.splitlines()
    assert attrsens.load(str(tmp_path / "n.safetensors"), device="cpu").classes == names.tolist()
    long = np.array(["a" * 300_000, "b" * 300_000])
    np.savez(tmp_path / "d.npz", images=images, labels=labels, classes=long)
    code, _, noted = cli("train", tmp_path / "d.npz", *QUICK, "--out", tmp_path, "--name", "m", "-q")
    assert code == 2
    assert "is too long; 2 classes want shorter names" in noted


def test_headers_that_are_no_card_are_left_alone(tmp_path: Path) -> None:
    state = find_net("preact-resnet8").build(10).state_dict()
    for metadata in (None, {"format": "pt"}, {"card": "{}"}):
        save_file(state, tmp_path / "m.safetensors", metadata)
        assert read_card(tmp_path / "m.safetensors") is None
        assert attrsens.load(str(tmp_path / "m.safetensors"), device="cpu").architecture == "preact-resnet8"
    save_file(state, tmp_path / "m.safetensors", {FORMAT: "{"})
    with pytest.raises(AttrsensError, match="its model card cannot be read"):
        read_card(tmp_path / "m.safetensors")


# -- usage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "data set nowhere: no such folder or file; give a folder with one folder a class"),
        (["@", "--recipe", "xyz"], "unknown recipe 'xyz'; recipes: cure, fast, pgd, std"),
        (["@", "--recipe", "fsat"], "unknown recipe 'fsat'; did you mean 'fast'?"),
        (["@", "--eps", "0.1"], "std has no parameter 'eps'; recipes that have it: fast, pgd"),
        (["@", "--recipe", "fast:steps=2"], "fast has no parameter 'steps'; recipes that have it: pgd"),
        (["@", "--recipe", "fast", "--eps", "8/0"], "fast: eps must be a number of at least 0; got '8/0'"),
        (["@", "--epochs", "0"], "std: epochs must be an integer of at least 1; got '0'"),
        (["@", "--recipe", "cure"], "recipe cure continues a trained network; name it with --from"),
        (["@", "--budget", "linf"], "budget 'linf': write NORM:EPS"),
        (["@", "--budget", "l3:1"], "unknown norm 'l3'"),
        (["@", "--width", "7"], "width 7: preact-resnet comes in 8, 16, 32, 40"),
        (["@", "--width", "8", "--arch", "resnet18"], "width is of preact-resnet"),
        (["@", "--arch", "py:a:b"], "a model card cannot name your own code"),
        (["@", "--arch", "resnet19"], "unknown architecture 'resnet19'; did you mean 'resnet1"),
        (["@", "--name", "a/b"], "name 'a/b': letters, digits"),
        (["@", "--name", "n" * 300], "underscores, 200 bytes at most"),
        (["@", "--precision", "fp8"], "precision must be auto, fp32 or bf16; got 'fp8'"),
        (["@", "--val", "nowhere.npz"], "data set nowhere.npz: no such folder or file"),
        (["@", "--held-out", "40"], "held-out must leave images on both sides; got 40 of 40"),
        (["@", "--device", "tpu"], "unknown device 'tpu'"),
        (["@", "--from", "nothing.pt"], "no file nothing.pt"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    arguments: list[str], message: str, npz: str, tmp_path: Path, cli: Run
) -> None:
    code, told, noted = cli("train", *[npz if a == "@" else a for a in arguments], "--out", tmp_path / "out")
    assert (code, told) == (2, "")
    assert message in noted
    assert len(noted.splitlines()) == 1
    assert not (tmp_path / "out" / "dots-std.safetensors").exists()


def test_a_network_that_came_to_nothing_is_not_written(npz: str, tmp_path: Path, cli: Run) -> None:
    call = ("train", npz, *QUICK, "--lr", "1e30", "--batch", "1000", "--out", tmp_path / "out", "--name", "n")
    code, told, noted = cli(*call)
    assert (code, told) == (3, "")
    assert noted.startswith("attrsens: training diverged: its weights, or what they give for held-out images, are not")
    assert len(noted.splitlines()) == 1
    assert not list((tmp_path / "out").glob("n.*"))


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (
            ("--batch", "1", "--size", "8"),
            2,
            "cannot learn from 1 picture of 8 px at a time (Expected more than 1 value",
        ),
        (("--weight-decay", "1e300"), 3, "a setting is too large for numbers of 32 bits; try smaller ones"),
        (("--recipe", "pgd", "--eps", "1e39"), 3, "a setting is too large for numbers of 32 bits; try smaller ones"),
    ],
)
def test_numbers_that_cannot_be_worked_with_are_one_line(
    more: tuple[str, ...], code: int, message: str, npz: str, tmp_path: Path, cli: Run
) -> None:
    found, told, noted = cli("train", npz, *QUICK, "--out", tmp_path, "--name", "n", *more)
    assert (found, told) == (code, "")
    assert message in noted
    assert len(noted.splitlines()) == 1


def test_ctrl_c_keeps_the_checkpoint_and_tells_what_there_is(
    npz: str, tmp_path: Path, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("train", npz, *QUICK, "--epochs", "2", "--out", tmp_path, "--name", "n", "--json", "-")
    step = Trainer._step

    def interrupt(self: Trainer) -> None:
        if self.state.step == 3:  # in the second epoch
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(Trainer, "_step", interrupt)
    code, told, noted = cli(*call)
    assert code == 130
    report = json.loads(told)
    assert report["provenance"]["interrupted"]
    assert len(report["curves"]) == 1
    assert report["model"] == {}
    assert (
        noted
        == f"attrsens: interrupted; the same command goes on from {tmp_path / 'n.checkpoint'}, if there is one yet\n"
    )
    assert (tmp_path / "n.checkpoint").exists()
    assert not (tmp_path / "n.safetensors").exists()
    noted = cli(*call[:-2], "--name", "m", "--force")[2]
    assert "interrupted; the same command without --force goes on from" in noted
    monkeypatch.undo()
    code, told, noted = cli(*call)
    assert code == 0, noted
    assert len(json.loads(told)["curves"]) == 2


def test_two_processes_do_not_train_one_network(npz: str, tmp_path: Path, cli: Run) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / ".n.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, _, noted = cli("train", npz, *QUICK, "--out", tmp_path, "--name", "n")
    assert code == 2
    assert "another process trains it now" in noted
    assert (tmp_path / ".n.lock").exists()
    inode = (tmp_path / ".n.lock").stat().st_ino
    assert cli("train", npz, *QUICK, "--out", tmp_path, "--name", "n")[0] == 0
    assert (tmp_path / ".n.lock").stat().st_ino == inode  # whoever waits for it holds the same one


def test_a_folder_that_cannot_be_written_is_one_line(npz: str, tmp_path: Path, cli: Run) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / ".n.lock").mkdir()
    for out in ("file", "file/deeper/still"):
        code, _, noted = cli("train", npz, *QUICK, "--out", tmp_path / out)
        assert code == 2
        assert noted == f"attrsens: out: {tmp_path / out} cannot be written (Not a directory); choose another --out\n"
    code, _, noted = cli("train", npz, *QUICK, "--out", tmp_path, "--name", "n")
    assert code == 2
    assert noted == f"attrsens: out: {tmp_path}/.n.lock cannot be written (Is a directory); choose another --out\n"


def test_help_and_mistakes_need_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from attrsens.cli import run\n"
        "codes = [run(['train', '--help']), run(['train', 'nowhere']), run(['train', sys.argv[1], '--eps', '1'])]\n"
        "print(codes, 'torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, env={**os.environ}, check=True
    )
    assert done.stderr.splitlines()[-1] == "[0, 2, 2] False"
    assert "--weight-decay" in done.stdout


# -- the registry ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*RECIPES])
def test_recipes_keep_the_law(name: str, npz: str) -> None:
    spec: Spec = RECIPES[name]
    assert spec.summary
    assert spec.version >= 1
    assert {h.name for h in COMMON} <= {h.name for h in spec.hypers}
    for hyper in spec.hypers:
        assert hyper.check(str(hyper.default).lower(), name) == hyper.default
        assert not hyper.param.help.endswith(".")
    asked = request(npz, name, start="lite0" if spec.traits["start"] else None)
    assert asked.parameters == spec.complete()


def test_recipes_are_listed(cli: Run) -> None:
    code, told, _ = cli("list", "recipes", "--json", "-")
    rows = json.loads(told)
    assert code == 0
    assert [row["name"] for row in rows] == ["cure", "fast", "pgd", "std"]
    assert {p["name"] for p in rows[1]["parameters"]} >= {"norm", "eps", "noise", "epochs", "seed"}
    code, told, _ = cli("list", "recipes")
    assert code == 0
    assert "N-FGSM, de Jorge et al. 2022" in told

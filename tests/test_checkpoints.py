"""Weights from files and by name: what loads, what is refused, and that no code of a file ever runs."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
import re
import sys
import urllib.error
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import attrsens
from attrsens.errors import AttrsensError
from attrsens.models import torchvision_nets, zoo
from attrsens.models.checkpoints import read_checkpoint, sha256_file
from attrsens.models.labels import load_labels
from attrsens.models.layouts import check_state

NO_CHECKPOINT = "not a checkpoint (neither safetensors nor a file of torch.save)"


def net(name: str, classes: int = 1000) -> nn.Module:
    """A torchvision network with weights that are drawn, but always the same."""

    with torch.random.fork_rng(devices=[]):
        module = torchvision.models.get_model(name, weights=None, num_classes=classes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                drawn = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(drawn + 0.5 if key.endswith("var") else (drawn - 0.5) * (tensor[0].numel() or 1) ** -0.5)
    return module.eval()


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    return net("resnet18")


@pytest.fixture(scope="module")
def small() -> nn.Module:
    """A network of 1.4 million weights, for the many files that are refused."""
    return net("shufflenet_v2_x0_5")


def pixels(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


MEAN, STD = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def assert_same_logits(classifier: attrsens.Classifier, module: nn.Module) -> None:
    x = pixels(2, 3, 64, 64)
    with torch.no_grad():
        expected = module((x - MEAN) / STD)
    assert float(expected.std()) > 1e-3
    torch.testing.assert_close(classifier.logits(x), expected, rtol=1e-5, atol=1e-6)


def write(path: Path, data: object) -> str:
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(data, path)
    else:
        torch.save(data, path)
    return str(path)


def refused(path: Path | str, arch: str | None = "shufflenet_v2_x0_5") -> str:
    """The message with which a model is refused: one line, exit code 2."""
    with pytest.raises(AttrsensError) as caught:
        attrsens.load(str(path), arch=arch, device="cpu")
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- files that load -------------------------------------------------------------------------------------------------

LAYOUTS = {
    "net.pt": lambda state: state,
    "state_dict.pth": lambda state: {"state_dict": state, "epoch": 3, "arch": "some"},
    "model.ckpt": lambda state: {"model": state, "optimizer": {"lr": 0.1, "state": {}}, "epoch": 3},
    "wrapped.bin": lambda state: {"net": {f"module.{k}": v for k, v in state.items()}, "acc": 0.7},
    "nested.pt": lambda state: {"model": {"state_dict": {f"module.{k}": v for k, v in state.items()}}},
    "parallel.pt": lambda state: {f"module.{k}": v for k, v in state.items()},
    "net.safetensors": lambda state: state,
    "parallel.safetensors": lambda state: {f"module.{k}": v for k, v in state.items()},
    "counterless.pt": lambda state: {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_gives_the_logits_of_the_network_it_was_saved_from(name, resnet18, small, tmp_path):
    arch, module = ("resnet18", resnet18) if name.startswith("net.") else ("shufflenet_v2_x0_5", small)
    path = write(tmp_path / name, LAYOUTS[name](module.state_dict()))
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    classifier = attrsens.load(path, arch=arch, device="cpu", fold=False)
    Path(path).unlink()
    assert_same_logits(classifier, module)
    assert classifier.sha256 == digest
    assert classifier.name == name.partition(".")[0]
    assert tuple(classifier.classes) == load_labels("imagenet").names
    steps = classifier.preprocess
    assert (steps.resize, steps.crop, steps.interp, steps.squash) == (256, 224, "bilinear", False)
    assert (steps.mean, steps.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_the_old_format_of_torch_loads_too(small, tmp_path):
    path = tmp_path / "old.pt"
    torch.save(small.state_dict(), path, _use_new_zipfile_serialization=False)
    assert_same_logits(attrsens.load(str(path), arch="shufflenet_v2_x0_5", device="cpu", fold=False), small)


def test_safetensors_are_known_by_content(small, tmp_path):
    path = write(tmp_path / "net.safetensors", small.state_dict())
    other = Path(path).rename(tmp_path / "net.pth")
    assert_same_logits(attrsens.load(str(other), arch="shufflenet_v2_x0_5", device="cpu", fold=False), small)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "squeezenet1_1"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_the_number_of_classes_comes_from_the_file(name, suffix, tmp_path):
    module = net(name, classes=10)
    path = write(tmp_path / f"ten.{suffix}", module.state_dict())
    classifier = attrsens.load(path, arch=name, device="cpu", fold=False)
    assert_same_logits(classifier, module)
    assert classifier.class_count == 10
    assert classifier.classes is None
    named = attrsens.load(path, arch=name, device="cpu", classes="cifar10")
    assert named.classes[3] == "cat"


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_file_of_the_default_architecture_loads(suffix, plain_lite0, tmp_path):
    state = {key: tensor.clone() for key, tensor in zoo.lite0().module.state_dict().items()}
    path = write(tmp_path / f"own.{suffix}", state)
    classifier = attrsens.load(path, arch="lite0", device="cpu", fold=False)
    x = pixels(1, 3, 224, 224)
    torch.testing.assert_close(classifier.logits(x), plain_lite0.logits(x), rtol=1e-5, atol=1e-5)
    assert classifier.preprocess == plain_lite0.preprocess


def test_loading_leaves_the_global_generator_alone(small, tmp_path):
    path = write(tmp_path / "net.pt", small.state_dict())
    before = torch.random.get_rng_state()
    attrsens.load(path, arch="shufflenet_v2_x0_5", device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_id_follows_weights_and_preprocessing_and_not_the_place(small, tmp_path):
    def loaded(path: str, **options) -> str:
        return attrsens.load(path, arch="shufflenet_v2_x0_5", device="cpu", **options).id

    path = write(tmp_path / "net.pt", small.state_dict())
    (tmp_path / "sub").mkdir()
    copied = tmp_path / "sub" / "net.pt"
    copied.write_bytes(Path(path).read_bytes())
    state = dict(small.state_dict())
    state["fc.bias"] = state["fc.bias"] + 1
    changed = write(tmp_path / "sub" / "net.pth", state)
    assert loaded(path).startswith("net@")
    assert loaded(path) == loaded(str(copied))
    assert loaded(path) == loaded(path, preprocess="resize=256")
    others = {loaded(path), loaded(path, preprocess="resize=232"), loaded(changed)}
    assert len(others) == 3


# -- own networks ----------------------------------------------------------------------------------------------------

OWN = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 4, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 144, 3))

def broken():
    raise KeyError("no such layer")

def number():
    return 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with the user's own module in it, entered; (module, its weights file)."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    (tmp_path / "own_net_of_a_test.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 144, 3))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    torch.save(module.state_dict(), "own.pt")
    Path("names.txt").write_text("zero\none\ntwo\n")
    yield module
    sys.modules.pop("own_net_of_a_test", None)


def test_an_own_network_of_one_channel_works_throughout(own, caplog):
    with caplog.at_level(logging.INFO, "attrsens"):
        classifier = attrsens.load(
            "own.pt",
            arch="py:own_net_of_a_test:build",
            preprocess="mean=0.13,std=0.3",
            classes="names.txt",
            device="cpu",
        )
    assert "running your own code: build() of module own_net_of_a_test" in caplog.text
    digits = np.random.default_rng(0).integers(0, 256, (2, 28, 28), dtype=np.uint8)
    x = torch.from_numpy(digits[:, None].astype(np.float32) / 255)
    with torch.no_grad():
        expected = own((x - 0.13) / 0.3)
    torch.testing.assert_close(classifier.logits(x), expected, rtol=1e-5, atol=1e-6)
    methods = ["grad", "gi", "sg:n=2", "ig:steps=2", "sp:patch_size=9,stride=9"]
    report = attrsens.explain(list(digits), model=classifier, method=methods, target=["top1", "two"])
    assert report.failures == []
    targets = [sorted({int(logits.argmax()), 2}) for logits in expected]
    assert len(report.records) == 5 * sum(map(len, targets))
    for record, attribution in zip(report.records, report.attributions, strict=True):
        assert attribution.map.shape == (28, 28)
        assert record.target.label in ("zero", "one", "two")
        assert float(np.abs(attribution.map).max()) > 0


def test_class_names_of_another_count_are_refused(own):
    Path("names.txt").write_text("zero\none\n")
    with pytest.raises(AttrsensError, match="own has 3 outputs, but 2 class names; give --classes") as caught:
        attrsens.explain(
            [np.zeros((28, 28), np.uint8)],
            model="own.pt",
            arch="py:own_net_of_a_test:build",
            preprocess="mean=0.13,std=0.3",
            classes="names.txt",
        )
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("py:own_net_of_a_test", "architecture 'py:own_net_of_a_test': write py:module:function"),
        ("py:", "architecture 'py:': write py:module:function"),
        ("py:no_such_module:build", "architecture py:no_such_module:build: ModuleNotFoundError: No module named"),
        ("py:own_net_of_a_test:none", "architecture py:own_net_of_a_test:none: AttributeError: module"),
        ("py:own_net_of_a_test:broken", "architecture py:own_net_of_a_test:broken: KeyError: 'no such layer'"),
        ("py:own_net_of_a_test:number", "architecture py:own_net_of_a_test:number: returned int, not a torch.nn"),
    ],
)
def test_own_code_that_gives_no_network_is_named(arch, message, own):
    assert refused("./own.pt", arch).startswith(message)


# -- files that are refused ------------------------------------------------------------------------------------------


class Payload:
    """Unpickling it runs a command that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def evil_zip(state, trap):
    out = io.BytesIO()
    torch.save({"state_dict": state, "trick": Payload(trap)}, out)
    return out.getvalue()


def evil_old_format(state, trap):
    out = io.BytesIO()
    torch.save({**state, "trick": Payload(trap)}, out, _use_new_zipfile_serialization=False)
    return out.getvalue()


def evil_pickle(state, trap):
    return pickle.dumps(Payload(trap))


def evil_pickle_in_a_web_of_names(state, trap):
    return pickle.dumps({"state_dict": {"fc.weight": Payload(trap)}})


@pytest.mark.parametrize(
    "make", [evil_zip, evil_old_format, evil_pickle, evil_pickle_in_a_web_of_names], ids=lambda f: f.__name__
)
def test_code_in_a_file_never_runs(make, small, tmp_path):
    trap, path = tmp_path / "ran", tmp_path / "evil.pt"
    path.write_bytes(make(small.state_dict(), trap))
    assert refused(path) == (
        f"{path}: refused: its pickle calls posix.system, which no checkpoint needs; nothing of it was run"
    )
    assert not trap.exists()
    if make is evil_pickle:  # the trap works
        pickle.loads(path.read_bytes())
        assert trap.exists()


def test_the_tensors_of_a_whole_pickled_module_load(small, tmp_path):
    torch.save(small, tmp_path / "module.pt")
    classifier = attrsens.load(str(tmp_path / "module.pt"), arch="shufflenet_v2_x0_5", device="cpu", fold=False)
    assert_same_logits(classifier, small)
    assert classifier.layout == ["pickled objects, read as tensors only", "under a pickled ShuffleNetV2"]


def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 2)).save(str(path))
    assert refused(path) == f"{path}: TorchScript or exported programs are not loaded; save a state_dict"


def test_exported_programs_are_refused_by_their_layout_and_by_their_suffix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("program.pt", "program.pt2"):
        with zipfile.ZipFile(name, "w") as file:
            file.writestr("program/archive_format", "pt2")
            file.writestr("program/models/model.json", "{}")
        assert refused(name) == f"{name}: TorchScript or exported programs are not loaded; save a state_dict"


CONTENTS = {
    "page.pt": (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page, not a checkpoint; download the"),
    "spaced.pt": (b"\n\n  <html>no</html>", "a web page, not a checkpoint"),
    "lfs.safetensors": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n",
        "a Git LFS pointer, not the weights; run 'git lfs pull'",
    ),
    "empty.pt": (b"", "the file is empty"),
    "text.pt": (b"just some words\n" * 9, NO_CHECKPOINT),
    "zeros.pt": (bytes(4096), NO_CHECKPOINT),
    "short.pt": (b"P", NO_CHECKPOINT),
    "header.safetensors": (
        (10**6).to_bytes(8, "little") + b"{}" + bytes(100),
        "safetensors that were cut short, in their header",
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_what_is_no_checkpoint_is_recognised(name, tmp_path):
    content, message = CONTENTS[name]
    (tmp_path / name).write_bytes(content)
    assert refused(tmp_path / name).startswith(f"{tmp_path / name}: {message}")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_file_that_was_cut_short_is_refused(suffix, small, tmp_path):
    path = Path(write(tmp_path / f"net.{suffix}", small.state_dict()))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = refused(path)
    assert message.startswith(f"{path}: damaged or cut short" if suffix == "pt" else f"{path}: cannot be read as")


def test_an_old_file_that_was_cut_short_is_refused(small, tmp_path):
    path = tmp_path / "old.pt"
    torch.save(small.state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-1000])
    assert refused(path).startswith(f"{path}: cannot be read as a checkpoint (")


def test_flipped_bytes_in_an_archive_are_noticed_or_the_weights_are_whole(small, tmp_path):
    path = Path(write(tmp_path / "net.pt", small.state_dict()))
    data = bytearray(path.read_bytes())
    at = data.index(b"data.pkl") + 40
    data[at : at + 60] = bytes(60)
    path.write_bytes(data)
    refused(path)


def test_a_directory_or_a_pipe_is_refused(tmp_path):
    (tmp_path / "folder.pt").mkdir()
    os.mkfifo(tmp_path / "pipe.pt")
    for name in ("folder.pt", "pipe.pt"):
        assert refused(tmp_path / name) == f"{tmp_path / name}: not a regular file"


STRANGE = {
    "no tensors": (
        {"epoch": 3, "lr": 0.1},
        "neither at the top nor under state_dict, model, net, ...; it holds epoch, lr",
    ),
    "nothing": ({}, "no state dict"),
    "a tensor": (
        torch.zeros(3),
        "no state dict, neither at the top nor under state_dict, model, net, ...; it holds Tensor",
    ),
    "a list": ([torch.zeros(3)], "it holds list"),
    "numbers for names": ({0: torch.zeros(3), 1: torch.zeros(2)}, ""),
    "an empty wrapper": ({"state_dict": {}}, "no state dict"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_file_without_a_state_dict_says_what_it_holds(kind, tmp_path):
    data, message = STRANGE[kind]
    path = write(tmp_path / "x.pt", data)
    found = refused(path)
    assert found.startswith(f"{path}: ")
    assert message in found


def test_weights_that_are_not_finite_are_refused(small, tmp_path):
    for bad in (float("nan"), float("inf")):
        state = {k: v.clone() for k, v in small.state_dict().items()}
        state["fc.weight"][3, 5] = bad
        path = write(tmp_path / "bad.pt", state)
        assert refused(path) == f"{path}: weights that are not finite: fc.weight"


def test_weights_of_another_architecture_are_named(small, tmp_path):
    path = write(tmp_path / "x.pt", small.state_dict())
    message = refused(path, "resnet18")
    assert message.startswith(f"{path}: weights do not fit the architecture: ")
    assert re.search(r": \d+ missing \(\S+, \S+, \S+, \.\.\.\); \d+ unexpected \(\S+, \S+, \S+, \.\.\.\)", message)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_missing_an_unexpected_and_a_misshapen_weight_are_named(suffix, small, tmp_path):
    state = dict(small.state_dict())
    del state["conv5.0.weight"]
    state["extra.weight"] = torch.zeros(1)
    state["conv1.0.weight"] = torch.zeros(24, 3, 5, 5)
    path = write(tmp_path / f"x.{suffix}", state)
    assert refused(path) == (
        f"{path}: weights do not fit the architecture: 1 missing (conv5.0.weight); 1 unexpected (extra.weight); "
        "1 of another shape (conv1.0.weight: (24, 3, 5, 5) for (24, 3, 3, 3))"
    )


def test_weights_that_do_not_fit_the_default_architecture_are_named(small, tmp_path):
    path = write(tmp_path / "x.pt", small.state_dict())
    assert "weights do not fit the architecture" in refused(path, "lite0")


def test_only_batchnorms_counters_may_be_missing():
    module = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    state = module.state_dict()
    check_state(module, {k: v for k, v in state.items() if k != "1.num_batches_tracked"}, "x")
    for name in state:
        if name != "1.num_batches_tracked":
            with pytest.raises(AttrsensError, match=rf"1 missing \({name}\)"):
                check_state(module, {k: v for k, v in state.items() if k != name}, "x")


def test_a_prefix_is_dropped_only_when_every_name_has_it(tmp_path):
    state = {"module.weight": torch.zeros(1), "bias": torch.ones(1)}
    assert list(read_checkpoint(write(tmp_path / "x.pt", state)).state) == ["module.weight", "bias"]


@pytest.mark.parametrize(
    ("model", "arch", "message"),
    [
        ("none.pt", "resnet18", "model: no file none.pt"),
        ("folder/none", "resnet18", "model: no file folder/none"),
        (
            "here.pt",
            None,
            "here.pt: not a checkpoint (neither safetensors nor a file of torch.save)",
        ),
        (
            "here.pt",
            "resnet81",
            "unknown architecture 'resnet81'; did you mean 'resnet18'? 'attrsens list models' lists them",
        ),
        (
            "resnet5O",
            None,
            "unknown model 'resnet5O'; did you mean 'resnet50'? 'attrsens list models' lists them; "
            "a file needs its suffix",
        ),
        ("lite0@IMAGENET1K_V1", None, "model lite0 has one set of weights; drop '@IMAGENET1K_V1'"),
        (
            "lite0+softplu",
            None,
            "unknown model wrapper 'softplu'; did you mean 'softplus'? model wrappers: smoothed, softplus",
        ),
    ],
)
def test_a_model_that_cannot_be_meant_is_named(model, arch, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("here.pt").write_bytes(b"x")
    assert refused(model, arch) == message


def test_on_the_command_line_a_refused_file_is_one_line_and_no_output(run_cli, tmp_path):
    trap, path = tmp_path / "ran", tmp_path / "evil.pt"
    path.write_bytes(evil_pickle({}, trap))
    out = tmp_path / "out"
    code, stdout, stderr = run_cli("explain", "sample:coffee", "--model", path, "--arch", "resnet18", "--out", out)
    assert (code, stdout) == (2, "")
    assert stderr.startswith(f"attrsens: {path}: refused: its pickle calls posix.system")
    assert stderr.count("\n") == 1
    assert not trap.exists()
    assert not (out / "report.json").exists()


# -- names -----------------------------------------------------------------------------------------------------------


def test_the_names_are_torchvisions_classifiers():

    assert list(zoo.torchvision_names()) == sorted(torchvision.models.list_models(module=torchvision.models))


def test_imagenets_class_names_are_torchvisions():
    from torchvision.models import ResNet18_Weights

    assert list(load_labels("imagenet").names) == ResNet18_Weights.IMAGENET1K_V1.meta["categories"]


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """torch's folder of downloaded weights, empty; any download fails."""
    torch.hub.set_dir(str(tmp_path / "hub"))

    def refuse(url, *_, **__):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield tmp_path / "hub" / "checkpoints"
    torch.hub._hub_dir = None


def test_a_named_model_takes_torchvisions_file_transforms_and_classes(resnet18, hub):
    from torchvision.models import ResNet18_Weights

    weights = ResNet18_Weights.DEFAULT
    hub.mkdir(parents=True)
    path = hub / Path(weights.url).name
    torch.save(resnet18.state_dict(), path)
    classifier = attrsens.load("resnet18", offline=True, device="cpu", fold=False)
    assert_same_logits(classifier, resnet18)
    steps = classifier.preprocess
    assert (steps.resize, steps.crop, steps.interp) == (256, 224, "bilinear")
    assert (steps.mean, steps.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert classifier.classes == weights.meta["categories"]
    assert classifier.wnids[0] == "n01440764"
    assert classifier.sha256 == sha256_file(path)
    assert classifier.name == "resnet18"


def test_the_weights_after_the_at_sign_are_chosen(hub):
    from torchvision.models import MobileNet_V2_Weights as Weights

    hub.mkdir(parents=True)
    module = net("mobilenet_v2")
    torch.save(module.state_dict(), hub / Path(Weights.IMAGENET1K_V1.url).name)
    first = attrsens.load("mobilenet_v2@IMAGENET1K_V1", offline=True, device="cpu", fold=False)
    assert_same_logits(first, module)
    assert first.preprocess.resize == 256
    assert first.name == "mobilenet_v2@IMAGENET1K_V1"
    message = refused_name("mobilenet_v2", offline=True)  # the default is the second
    assert Path(Weights.IMAGENET1K_V2.url).name in message
    torch.save(module.state_dict(), hub / Path(Weights.IMAGENET1K_V2.url).name)
    second = attrsens.load("mobilenet_v2", offline=True, device="cpu")
    assert second.preprocess.resize == 232
    assert second.id != first.id


def refused_name(model: str, **options) -> str:
    with pytest.raises(AttrsensError) as caught:
        attrsens.load(model, device="cpu", **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_weights_name_those_that_exist(hub):
    message = refused_name("resnet18@NOPE", offline=True)
    assert message.startswith("unknown weights 'NOPE'; weights of resnet18: IMAGENET1K_V1")
    message = refused_name("resnet50@IMAGENET1K_V3", offline=True)
    assert message.startswith("unknown weights 'IMAGENET1K_V3'; did you mean 'IMAGENET1K_V")
    assert "weights of resnet50: IMAGENET1K_V1, IMAGENET1K_V2" in message


@pytest.mark.parametrize("word", [None, "1", "True", "yes", "ON"])
def test_offline_says_which_file_to_put_where_and_what_works(word, hub, monkeypatch):
    if word:
        monkeypatch.setenv("HF_HUB_OFFLINE", word)
    assert refused_name("resnet18", offline=word is None) == (
        "model resnet18: resnet18-f37072fd.pth is not in the cache and downloads are off; put the file at "
        f"{hub / 'resnet18-f37072fd.pth'}, give your own with --arch resnet18, or use --model lite0, which needs no "
        "download"
    )
    assert not hub.exists()


def test_offline_turned_off_by_its_variable_tries_the_download(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert "failed (<urlopen error no network in tests>)" in refused_name("resnet18")


def test_a_failed_download_says_what_was_tried_and_what_works(hub):
    assert refused_name("resnet18") == (
        "model resnet18: download of https://download.pytorch.org/models/resnet18-f37072fd.pth failed (<urlopen error "
        f"no network in tests>); put the file at {hub / 'resnet18-f37072fd.pth'}, give your own with --arch resnet18, "
        "or use --model lite0, which needs no download"
    )


def test_a_download_that_does_not_match_its_hash_is_a_failed_download(hub, monkeypatch):
    def other(url, destination, prefix, **_):
        assert prefix == "f37072fd"
        raise RuntimeError(f'invalid hash value (expected "{prefix}", got "00")')

    monkeypatch.setattr(torch.hub, "download_url_to_file", other)
    assert 'failed (invalid hash value (expected "f37072fd", got "00"))' in refused_name("resnet18")


def test_a_download_states_size_and_sha256(resnet18, hub, monkeypatch, caplog):
    def fetch(url, destination, prefix, **_):
        assert url == "https://download.pytorch.org/models/resnet18-f37072fd.pth"
        torch.save(resnet18.state_dict(), destination)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with caplog.at_level(logging.INFO, "attrsens"):
        classifier = attrsens.load("resnet18", device="cpu")
    path = hub / "resnet18-f37072fd.pth"
    size = path.stat().st_size / 1e6
    assert f"downloaded {path} ({size:.1f} MB, sha256 {classifier.sha256})" in caplog.text
    assert classifier.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()


def test_every_weights_of_torchvision_has_the_parameters_that_we_build(monkeypatch):
    """The count that torchvision publishes beside each set of weights; nothing is downloaded or initialised."""
    seen = 0
    for name in zoo.torchvision_names():
        for weights in torchvision.models.get_model_weights(name):
            if name.startswith("regnet") or weights.meta["categories"] is None:
                continue  # computes its widths with tensors; has no classifier
            with torch.device("meta"):
                module = torchvision_nets.build(
                    name, len(weights.meta["categories"]), **torchvision_nets.size(name, weights.meta)
                )
            aux = [n for n in ("aux1", "aux2", "AuxLogits") if hasattr(module, n)]
            count = sum(p.numel() for n, p in module.named_parameters() if n.split(".")[0] not in aux)
            assert count == weights.meta["num_params"] or (aux and name == "inception_v3"), (name, weights)
            seen += 1
    assert seen > 70


def test_weights_without_a_classifier_are_refused():
    with pytest.raises(AttrsensError, match="these weights are features without a classifier"):
        attrsens.load("vgg16@IMAGENET1K_FEATURES", offline=True, device="cpu")


def test_a_file_of_a_regnet_tells_its_classes(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file(net("regnet_x_400mf", classes=7).state_dict(), path)
    assert attrsens.load(str(path), arch="regnet_x_400mf", device="cpu").class_count == 7


@pytest.mark.parametrize("name", ["densenet121", "mnasnet0_5", "vit_b_16@IMAGENET1K_SWAG_E2E_V1"])
def test_families_with_peculiar_checkpoints_load_by_name(name, tmp_path, monkeypatch):
    base, _, choice = name.partition("@")
    enum = torchvision.models.get_model_weights(base)
    weights = enum[choice] if choice else enum.DEFAULT
    module = torchvision_nets.build(base, 1000, **torchvision_nets.size(base, weights.meta))
    state = module.state_dict()
    if base == "densenet121":  # the published file is named after an older torchvision
        old = {re.sub(r"(denselayer\d+\.(?:norm|relu|conv))(\d)", r"\1.\2", key): value for key, value in state.items()}
        assert old.keys() != state.keys()
        state = old
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(state, tmp_path / "checkpoints" / Path(weights.url).name)
    classifier = attrsens.load(name, offline=True, device="cpu", fold=False)
    assert classifier.preprocess.crop == weights.transforms().crop_size[0]
    want = module.eval().state_dict()
    assert all(torch.equal(value, want[key]) for key, value in classifier._net.state_dict().items())

"""Checkpoints as their producers write them: each gives the network that was saved, and nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import dill
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from conftest import DATA, needs_data
from PIL import Image
from safetensors.torch import save_file
from test_hostile import read_here
from torch import Tensor, nn
from toys import uniform

import attrsens
from attrsens.errors import AttrsensError
from attrsens.models import assemble, checkpoints, zoo
from attrsens.models.layouts import settle
from attrsens.models.nets import find_net
from attrsens.models.nets.mnist import from_tensorflow
from attrsens.models.torchvision_nets import adapt

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
PLAIN = (0.0,), (1.0,)


def drawn(module: nn.Module, seed: int = 1) -> nn.Module:
    """The network with weights under which every channel counts, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                values = torch.rand(tensor.shape, generator=generator)
                if tensor.dim() > 1:
                    tensor.copy_((values - 0.5) * 5 / tensor[0].numel() ** 0.5)
                elif name.endswith(("weight", "var")):
                    tensor.copy_(values + 0.5)
                else:
                    tensor.copy_((values - 0.5) * 0.3)
    return module.eval()


def load(path: Path | str, arch: str | None = None, **options) -> attrsens.Classifier:
    return attrsens.load(str(path), arch=arch, device="cpu", fold=False, **options)


def assert_same(classifier, module: Callable[[Tensor], Tensor], statistics, size: tuple[int, int, int]) -> None:
    """The classifier computes what the network does behind its normalisation, and knows that normalisation."""
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in statistics)
    x = uniform(2, *size)
    with torch.no_grad():
        expected = module((x - mean) / std)
    assert float((expected[0] - expected[1]).abs().max()) > 0.05 * float(expected.abs().max()) > 0
    torch.testing.assert_close(classifier.logits(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert classifier.preprocess.mean == pytest.approx(statistics[0])
    assert classifier.preprocess.std == pytest.approx(statistics[1])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def real(monkeypatch) -> list:
    """The child processes that were started."""
    return spy(monkeypatch, checkpoints.subprocess.run)


@pytest.fixture
def readers(monkeypatch) -> list:
    """The same, where they do their work in this process, which saves seconds."""
    return spy(monkeypatch, read_here)


def spy(monkeypatch, run: Callable) -> list:
    calls = []
    monkeypatch.setattr(checkpoints.subprocess, "run", lambda *a, **options: calls.append(a) or run(*a, **options))
    return calls


# -- MadryLab's robustness and its relatives -------------------------------------------------------------------------


class Normaliser(nn.Module):
    def __init__(self, mean, std) -> None:
        super().__init__()
        self.register_buffer("new_mean", torch.tensor(mean)[..., None, None])
        self.register_buffer("new_std", torch.tensor(std)[..., None, None])


class Through(nn.Module):
    """What robust-models-transfer puts around the networks that robustness does not know."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class Attacker(nn.Module):
    def __init__(self, model: nn.Module, mean, std) -> None:
        super().__init__()
        self.normalize = Normaliser(mean, std)
        self.model = model


class Attackable(nn.Module):
    def __init__(self, model: nn.Module, mean, std) -> None:
        super().__init__()
        self.normalizer = Normaliser(mean, std)
        self.model = model
        self.attacker = Attacker(model, mean, std)


def robustness(module: nn.Module, mean, std, **more) -> dict:
    """The dictionary that robustness saves of a network in training."""
    whole = nn.Sequential(OrderedDict(module=Attackable(module, mean, std)))  # nn.DataParallel's names, without a GPU
    optimizer = torch.optim.SGD(whole.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    return {
        "model": whole.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": torch.optim.lr_scheduler.StepLR(optimizer, 30).state_dict(),
        "epoch": 90,
        "amp": None,
        **more,
    }


def multiplier(steps: list[int]) -> Callable[[int], float]:
    def custom_lr_multiplier(epoch: int) -> float:
        return math.prod(0.1 for step in steps if epoch >= step)

    return custom_lr_multiplier


@pytest.fixture
def gone():
    """An object of a class whose module nobody has when the file is read."""
    module = types.ModuleType("cox_of_a_test")
    exec("class Parameters:\n    def __init__(self): self.lr, self.arch = 0.1, 'resnet18'", module.__dict__)
    sys.modules["cox_of_a_test"] = module
    yield module.Parameters()
    del sys.modules["cox_of_a_test"]


def schedule(**_) -> dict:
    """LambdaLR's state, with the closure that its functions are."""
    return {"schedule": {"base_lrs": [0.1], "last_epoch": 3, "lr_lambdas": [multiplier([30, 60])]}}


EXTRAS = {
    "plain numbers": (lambda gone: {"nat_prec1": 71.5, "adv_prec1": 40}, False),
    "a numpy scalar": (lambda gone: {"nat_prec1": np.float64(71.5)}, True),
    "a tensor": (lambda gone: {"adv_prec1": torch.tensor(40.0)}, False),
    "a closure": (lambda gone: schedule(), True),
    "an object of a lost module": (lambda gone: {"args": gone}, True),
    "an object of __main__": (lambda gone: {"args": type("Args", (), {"__module__": "__main__", "lr": 1})()}, True),
}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
@pytest.mark.parametrize("name", EXTRAS)
def test_a_checkpoint_of_robustness_loads_whatever_lies_beside_the_weights(name, old, gone, readers, tmp_path):
    extras, child = EXTRAS[name]
    module = drawn(torchvision.models.shufflenet_v2_x0_5(num_classes=9))
    path = tmp_path / "imagenet_l2_3_0.pt"
    data = robustness(module, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), **extras(gone))
    torch.save(data, path, pickle_module=dill, _use_new_zipfile_serialization=not old)
    classifier = load(path, "shufflenet_v2_x0_5")
    assert_same(classifier, module, ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)), (3, 64, 64))
    assert classifier.sha256 == sha256(path)
    assert classifier.layout[1:] == [
        "under model",
        "prefix module.",
        "attacker's copy dropped",
        "normaliser inside, used as mean and std",
        "prefix model.",
    ]
    assert len(readers) == child
    assert classifier.layout[0].startswith("pickled objects" if child else "torch.save")


@pytest.mark.parametrize(
    ("build", "arch", "statistics", "size"),
    [
        (torchvision.models.resnet18, "resnet18", IMAGENET, (3, 64, 64)),
        (lambda: find_net("cifar-resnet18").build(10), "cifar-resnet18", CIFAR, (3, 32, 32)),
    ],
)
def test_networks_of_robustness_load(build, arch, statistics, size, tmp_path):
    module = drawn(build())
    path = tmp_path / "x.pt"
    torch.save(robustness(module, *statistics), path, pickle_module=dill)
    classifier = load(path, arch)
    assert_same(classifier, module, statistics, size)
    assert classifier.architecture == arch


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_a_further_level_of_robust_models_transfer_is_taken_off(suffix, tmp_path):
    module = drawn(torchvision.models.shufflenet_v2_x0_5())
    path = tmp_path / f"x.{suffix}"
    data = robustness(Through(module), *IMAGENET)
    assert any(name.startswith("module.model.model.conv1") for name in data["model"])
    if suffix == "ckpt":
        torch.save(data, path)
    else:
        save_file({name: tensor.clone() for name, tensor in data["model"].items()}, path)
    classifier = load(path, "shufflenet_v2_x0_5")
    assert_same(classifier, module, IMAGENET, (3, 64, 64))
    assert classifier.layout[-2:] == ["prefix model.", "prefix model."]


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
def test_the_real_reader_reads_what_dill_wrote(old, real, tmp_path):
    module = drawn(find_net("cifar-resnet20").build(10))
    data = robustness(module, *CIFAR, **schedule())
    torch.save(data, tmp_path / "x.pt", pickle_module=dill, _use_new_zipfile_serialization=not old)
    assert_same(load(tmp_path / "x.pt", "cifar-resnet20"), module, CIFAR, (3, 32, 32))
    assert len(real) == 1


@pytest.mark.parametrize("module", ["normalize", "normalizer"])
def test_a_checkpoint_of_robustbench_loads(module, tmp_path):
    net = drawn(find_net("cifar-resnet20").build(10))
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in CIFAR)
    state = {f"{module}.mean": mean, f"{module}.std": std, **{f"model.{k}": v for k, v in net.state_dict().items()}}
    torch.save(state, tmp_path / "x.pt")
    assert_same(load(tmp_path / "x.pt", "cifar-resnet20"), net, CIFAR, (3, 32, 32))
    assert load(tmp_path / "x.pt").architecture == "cifar-resnet20"


def test_an_attackers_copy_that_differs_is_told_and_dropped(caplog, tmp_path):
    module = drawn(find_net("cifar-resnet20").build(10))
    data = robustness(module, *CIFAR)
    data["model"] = {k: v + 1 if k == "module.attacker.model.conv1.weight" else v for k, v in data["model"].items()}
    data["model"]["module.attacker.model.bn1.weight"] = torch.ones(16).int()  # of another type
    torch.save(data, tmp_path / "x.pt")
    with caplog.at_level(logging.WARNING, "attrsens"):
        classifier = load(tmp_path / "x.pt", "cifar-resnet20")
    assert "the attacker's copy of the network differs from the network; the network is used" in caplog.text
    assert_same(classifier, module, CIFAR, (3, 32, 32))


def googlenet(classes: int) -> nn.Module:
    return torchvision.models.googlenet(num_classes=classes, transform_input=True, aux_logits=True, init_weights=False)


@pytest.mark.parametrize("given", [True, False], ids=["named", "guessed"])
def test_the_robust_googlenet_loads_with_its_renamed_branch_and_its_auxiliary_heads(given, readers, tmp_path):
    module = drawn(googlenet(11))
    data = robustness(module, *IMAGENET, **schedule())
    data["model"] = OrderedDict((k.replace("branch4.1.", "branch4_conv."), v) for k, v in data["model"].items())
    assert "module.model.inception3a.branch4_conv.conv.weight" in data["model"]
    assert "module.model.aux2.fc2.bias" in data["model"]
    torch.save(data, tmp_path / "googlenet.pt", pickle_module=dill)
    classifier = load(tmp_path / "googlenet.pt", "googlenet" if given else None)
    assert_same(classifier, module, IMAGENET, (3, 64, 64))
    module.transform_input = False
    with pytest.raises(AssertionError, match="not close"):  # what it rescales by matters
        assert_same(classifier, module, IMAGENET, (3, 64, 64))


def test_two_tensors_that_would_get_one_name_are_refused(tmp_path):
    state = googlenet(11).state_dict()
    state["inception3a.branch4_conv.conv.weight"] = state["inception3a.branch4.1.conv.weight"] + 1
    assert adapt("googlenet", OrderedDict(state)).keys() == {k for k in state if not k.startswith("aux")}
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(AttrsensError, match=r"1 unexpected \(inception3a\.branch4_conv\.conv\.weight\)"):
        load(tmp_path / "x.pt", "googlenet")


# -- an architecture of one's own ------------------------------------------------------------------------------------

OWN = """
import torch
from torch import nn

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
        self.normalize = nn.Module()
        self.normalize.register_buffer("mean", torch.zeros(3, 1, 1))
        self.normalize.register_buffer("std", torch.ones(3, 1, 1))

    def forward(self, x):
        x = (x - self.normalize.mean) / self.normalize.std
        return self.module(x), x
"""


def test_a_network_of_ones_own_keeps_its_normaliser_and_names_and_may_return_a_tuple(tmp_path, monkeypatch):
    (tmp_path / "own_layout_of_a_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        module = drawn(__import__("own_layout_of_a_test").Wrapped())
        module.normalize.std.copy_(torch.tensor([0.2, 0.3, 0.4])[:, None, None])
        torch.save(module.state_dict(), tmp_path / "x.pt")
        classifier = load(tmp_path / "x.pt", "py:own_layout_of_a_test:Wrapped", preprocess="mean=0.5,std=0.25")
        assert_same(classifier, lambda x: module(x)[0], ((0.5,), (0.25,)), (3, 2, 2))
        assert classifier.layout == ["torch.save"]
        report = attrsens.explain([np.full((2, 2, 3), 99, np.uint8)], model=classifier, method=["grad", "ig:steps=2"])
        assert report.failures == []
    finally:
        sys.modules.pop("own_layout_of_a_test", None)


def test_settling_takes_nothing_off_that_is_wanted():
    state = OrderedDict({"module.normalize.mean": torch.ones(3), "module.normalize.std": torch.ones(3)})
    assert settle(state, list(state), "x").state is state
    assert settle(state, ["module.normalize.mean"], "x").mean == (1, 1, 1)


# -- CIFAR -----------------------------------------------------------------------------------------------------------


def batchnorm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    kept = [state[f"{name}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")]
    return (x - kept[2]) / (kept[3] + 1e-5).sqrt() * kept[0] + kept[1]


def resnet(state: dict[str, Tensor], x: Tensor, stages: int, blocks: int) -> Tensor:
    """The two collections' networks of basic blocks, written as formulas over the names of their tensors."""
    x = batchnorm(F.conv2d(x, state["conv1.weight"], padding=1), state, "bn1").clamp(min=0)
    for stage in range(1, stages + 1):
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            step = 2 if stage > 1 and block == 0 else 1
            y = F.conv2d(x, state[f"{at}.conv1.weight"], stride=step, padding=1)
            y = batchnorm(y, state, f"{at}.bn1").clamp(min=0)
            y = batchnorm(F.conv2d(y, state[f"{at}.conv2.weight"], padding=1), state, f"{at}.bn2")
            if f"{at}.shortcut.0.weight" in state:  # kuangliu: a convolution
                shortcut = F.conv2d(x, state[f"{at}.shortcut.0.weight"], stride=step)
                x = batchnorm(shortcut, state, f"{at}.shortcut.1")
            elif step == 2:  # akamaster: every second pixel, and as many empty channels before as behind
                small = torch.zeros_like(y)
                quarter = y.shape[1] // 4
                small[:, quarter : quarter + x.shape[1]] = x[..., ::2, ::2]
                x = small
            x = (x + y).clamp(min=0)
    return x.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]


CIFAR_NETS = {
    "cifar-resnet18": (CIFAR, 4, 2, lambda state: {"net": state, "acc": 95.2, "epoch": 199}),
    "cifar-resnet20": (IMAGENET, 3, 3, lambda state: {"state_dict": state, "best_prec1": 92.6}),
    "cifar-resnet32": (IMAGENET, 3, 5, lambda state: {"state_dict": state, "best_prec1": np.float64(92.6)}),
}


@pytest.mark.parametrize("arch", CIFAR_NETS)
@pytest.mark.parametrize(("prefix", "given"), [("module.", True), ("module.", False), ("", True)])
def test_cifar_networks_of_both_collections_compute_what_their_formulas_say(arch, prefix, given, readers, tmp_path):
    statistics, stages, blocks, wrap = CIFAR_NETS[arch]
    state = drawn(find_net(arch).build(10)).state_dict()
    path = tmp_path / "ckpt.th.pt"
    torch.save(wrap({f"{prefix}{name}": tensor for name, tensor in state.items()}), path)
    classifier = load(path, arch if given else None)
    assert_same(classifier, lambda x: resnet(state, x, stages, blocks), statistics, (3, 32, 32))
    assert classifier.architecture == arch
    assert classifier.classes[3] == "cat"


# -- MNIST -----------------------------------------------------------------------------------------------------------


def tensorflow(arrays: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Madry's MNIST network as TensorFlow computes it: (N, H, W, C), SAME padding, flattened as it lies."""

    def convolved(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        x = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), (1, 2))
        return np.einsum("nyxchw,hwcd->nyxd", windows, kernel, optimize=True)

    x = images
    for i in (1, 2):
        x = np.maximum(convolved(x, arrays[f"conv{i}"]) + arrays[f"biasc{i}"], 0)
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
    x = np.maximum(x.reshape(len(x), -1) @ arrays["fc1"] + arrays["biasf1"], 0)
    return x @ arrays["fc2"] + arrays["biasf2"]


TF_SHAPES = {
    "conv1": (5, 5, 1, 32),
    "biasc1": (32,),
    "conv2": (5, 5, 32, 64),
    "biasc2": (64,),
    "fc1": (3136, 1024),
    "biasf1": (1024,),
    "fc2": (1024, 10),
    "biasf2": (10,),
}


def archive() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    return {
        name: (rng.normal(size=shape) * 0.7 / math.prod(shape[:-1] or (4,)) ** 0.5).astype(np.float32)
        for name, shape in TF_SHAPES.items()
    }


@pytest.mark.parametrize(("save", "given"), [(np.savez, True), (np.savez_compressed, False)])
def test_a_network_of_tensorflow_computes_what_it_did_there(given, save, tmp_path):
    arrays = archive()
    path = tmp_path / "madry.npz"
    save(path, **arrays)
    classifier = load(path, "mnist-cnn" if given else None)
    images = np.random.default_rng(5).random((3, 28, 28, 1), np.float32)
    found = classifier.logits(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    expected = tensorflow(arrays, images)
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert classifier.sha256 == sha256(path)
    assert (classifier.architecture, classifier.layout) == ("mnist-cnn", ["numpy archive"])


def test_an_archive_of_tensorflow_that_lacks_or_doubles_an_array_is_refused(tmp_path):
    arrays = archive()
    np.savez(tmp_path / "x.npz", **{k: v for k, v in arrays.items() if k != "fc2"})
    with pytest.raises(AttrsensError, match="weights do not fit the architecture"):
        load(tmp_path / "x.npz", "mnist-cnn")
    np.savez(tmp_path / "x.npz", **arrays, **{"conv1.weight": arrays["conv1"]})
    with pytest.raises(AttrsensError, match="unexpected"):
        load(tmp_path / "x.npz", "mnist-cnn")


@pytest.mark.parametrize("name", TF_SHAPES)
@pytest.mark.parametrize("shape", [(), (0,), (3136, 0), (3136,), (0, 3136), (1, 1, 1, 1, 1)])
def test_arrays_of_odd_shape_are_refused_by_their_shape(name, shape, tmp_path):
    np.savez(tmp_path / "x.npz", **archive() | {name: np.zeros(shape, np.float32)})
    with pytest.raises(AttrsensError, match="of another shape"):
        load(tmp_path / "x.npz", "mnist-cnn")


def test_our_own_names_pass_untouched():
    state = find_net("mnist-cnn").build(10).state_dict()
    assert from_tensorflow(state) == state


# -- whole networks and their order ----------------------------------------------------------------------------------


class Scratched(nn.Sequential):
    """A network with what it does not save: a buffer, an empty bias, a parameter that it shares."""

    def __init__(self) -> None:
        super().__init__(*find_net("mnist-lenet").build(10).children())
        self.register_buffer("scratch", torch.ones(3), persistent=False)
        self.register_parameter("none", None)
        self.hook = multiplier([3])


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
def test_a_whole_network_gives_what_it_would_save_itself(old, readers, tmp_path):
    module = drawn(Scratched())
    torch.save(module, tmp_path / "x.pt", pickle_module=dill, _use_new_zipfile_serialization=not old)
    read = checkpoints.read_checkpoint(tmp_path / "x.pt")
    assert list(read.state) == list(module.state_dict())
    assert all(torch.equal(read.state[name], value) for name, value in module.state_dict().items())
    assert read.layout == ["pickled objects, read as tensors only", "under a pickled Scratched"]
    assert_same(load(tmp_path / "x.pt"), module, PLAIN, (1, 28, 28))


def test_the_order_of_tensors_survives_the_reader_where_names_are_foreign(plain_lite0, readers, tmp_path):
    """The default architecture takes tensors by position: a BatchNorm's four have one shape."""
    state = {key: tensor for key, tensor in zoo.lite0().module.state_dict().items() if "tracked" not in key}
    path = tmp_path / "x.pt"
    foreign = {f"part{len(state) - i}": tensor for i, tensor in enumerate(state.values())}
    torch.save({"state_dict": foreign, "score": np.float64(1)}, path)
    x = uniform(1, 3, 224, 224)
    for _ in range(2):  # from the reader, then as it was kept
        torch.testing.assert_close(load(path, "lite0").logits(x), plain_lite0.logits(x), rtol=1e-4, atol=1e-4)


# -- guessing --------------------------------------------------------------------------------------------------------


def test_a_network_of_nobody_fits_nothing(tmp_path):
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "x.pt")
    with pytest.raises(AttrsensError, match="its tensors fit none of torchvision's architectures and none of cifar-re"):
        load(tmp_path / "x.pt")


def test_a_network_of_two_names_is_to_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(assemble, "net_names", lambda: ["mnist-lenet", "mnist-cnn", "mnist-lenet"])
    torch.save(find_net("mnist-lenet").build(10).state_dict(), tmp_path / "x.pt")
    with pytest.raises(AttrsensError, match="its tensors fit mnist-lenet, mnist-lenet; choose with --arch"):
        load(tmp_path / "x.pt")


def test_a_file_with_a_plus_sign_is_itself_and_may_be_wrapped(tmp_path):
    module = drawn(find_net("mnist-lenet").build(10))
    path = tmp_path / "mnist+adv+softplus.pt"
    torch.save(module.state_dict(), path)
    bare = load(path)
    assert bare.name == "mnist+adv+softplus"
    assert_same(bare, module, PLAIN, (1, 28, 28))
    wrapped = load(f"{path}+softplus:beta=2")
    assert wrapped.name == "mnist+adv+softplus+softplus:beta=2.0"
    assert wrapped.sha256 == bare.sha256
    assert wrapped.id != bare.id
    x = uniform(2, 1, 28, 28)
    assert not torch.allclose(wrapped.logits(x), bare.logits(x), atol=1e-3)


# -- what the reader found is kept -----------------------------------------------------------------------------------


@pytest.fixture
def dilled(tmp_path) -> tuple[Path, nn.Module]:
    module = drawn(find_net("cifar-resnet20").build(10))
    torch.save(robustness(module, *CIFAR, **schedule()), tmp_path / "dilled.pt", pickle_module=dill)
    return tmp_path / "dilled.pt", module


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.safetensors"))


def test_a_file_is_read_by_the_child_once_and_kept_until_it_is_cleared(dilled, real, run_cli, tmp_path):
    path, module = dilled
    first = load(path)
    assert len(real) == 1
    [copy] = kept(tmp_path)
    assert copy.name == f"{sha256(path)}.safetensors"
    second = load(path)
    assert len(real) == 1
    for classifier in (first, second):
        assert_same(classifier, module, CIFAR, (3, 32, 32))
        assert classifier.sha256 == sha256(path)
        assert classifier.source == str(path)
    assert (first.id, first.layout) == (second.id, second.layout)
    plain = tmp_path / "plain" / "dilled.pt"
    plain.parent.mkdir()
    torch.save(module.state_dict(), plain)
    assert load(plain).id != first.id  # the id is that of the file, not of the tensors
    code, _, stderr = run_cli("cache", "clear")
    assert (code, kept(tmp_path)) == (0, [])
    assert "removed 0 cells" in stderr
    load(path)
    assert len(real) == 2


@pytest.mark.parametrize("damage", ["a weight", "its end", "nothing of it", "another file", "its facts"])
def test_a_damaged_kept_file_is_noticed_and_read_anew(damage, dilled, readers, caplog, tmp_path):
    path, module = dilled
    load(path)
    [copy] = kept(tmp_path)
    whole = copy.read_bytes()
    spoiled = bytearray(whole)
    spoiled[-5] ^= 1
    save_file(module.state_dict(), tmp_path / "other.safetensors", {"format": checkpoints.KEPT})
    copy.write_bytes(
        {
            "a weight": bytes(spoiled),
            "its end": whole[:-100],
            "nothing of it": b"",
            "another file": (tmp_path / "other.safetensors").read_bytes(),
            "its facts": whole.replace(sha256(path).encode(), b"0" * 64),
        }[damage]
    )
    with caplog.at_level(logging.WARNING, "attrsens"):
        assert_same(load(path), module, CIFAR, (3, 32, 32))
    assert "is damaged" in caplog.text
    assert len(readers) == 2
    load(path)
    assert len(readers) == 2


def test_nothing_is_kept_without_a_cache_and_elsewhere_with_another(dilled, readers, tmp_path):
    path, module = dilled
    assert_same(load(path, cache=False), module, CIFAR, (3, 32, 32))
    assert kept(tmp_path) == []
    assert not (tmp_path / "cache").exists()
    load(path, cache_dir=tmp_path / "mine")
    assert kept(tmp_path) == []
    assert [copy.name for copy in (tmp_path / "mine").rglob("*.safetensors")] == [f"{sha256(path)}.safetensors"]
    assert len(readers) == 2


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(dilled, readers, caplog, tmp_path):
    path, module = dilled
    (tmp_path / "mine").touch()
    with caplog.at_level(logging.WARNING, "attrsens"):
        assert_same(load(path, cache_dir=tmp_path / "mine"), module, CIFAR, (3, 32, 32))
    assert "cannot be kept" in caplog.text


def test_plain_files_start_no_child_and_are_not_kept(readers, tmp_path):
    torch.save(find_net("mnist-lenet").build(10).state_dict(), tmp_path / "x.pt")
    load(tmp_path / "x.pt")
    assert (readers, kept(tmp_path)) == ([], [])


# -- third-party networks --------------------------------------------------------------------------------------------

THIRD = {
    "cifar10-resnet20": "cifar-resnet20",
    "cifar10-resnet32": "cifar-resnet32",
    "cifar10-resnet32-adv-linf": "cifar-resnet32",
    "cifar10-resnet32-adv-stadv-linf": "cifar-resnet32",
    "mnist-lenet": "mnist-lenet",
    "mnist-conv-small": "mnist-conv-small",
    "mnist-madry-tiny-adv": "mnist-madry-tiny",
    "mnist-cnn-a-adv": "mnist-cnn-a",
    "mnist-kw-0.1": "mnist-cnn-a",
}


def photos(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(images, labels) on which models.json measured."""
    folder = Path(DATA)
    if name == "acc_mnist1000":
        file = np.load(folder / "mnist1000.npz")
        return file["images"][..., None], file["labels"]
    lossless = np.load(folder / "cifar10-lossless.npz")
    if name == "acc_lossless300":
        return lossless["images"], lossless["labels"]
    scans = np.load(folder / "cifar10-test.npz")
    head, data, offsets = scans["header"].tobytes(), scans["data"].tobytes(), scans["offsets"]
    images = [Image.open(io.BytesIO(head + data[offsets[i] : offsets[i + 1]])) for i in lossless["jpg_index"]]
    return np.stack([np.asarray(image) for image in images]), scans["labels"][lossless["jpg_index"]]


@needs_data
@pytest.mark.parametrize("given", [True, False], ids=["named", "guessed"])
@pytest.mark.parametrize("name", THIRD)
def test_third_party_networks_reach_their_written_accuracies(name, given):
    [entry] = [
        e for e in json.loads((Path(DATA) / "models" / "models.json").read_text()) if e["file"].startswith(f"{name}.")
    ]
    classifier = load(Path(DATA) / "models" / entry["file"], THIRD[name] if given else None)
    assert classifier.architecture == THIRD[name]
    assert (classifier.preprocess.mean, classifier.preprocess.std) == (tuple(entry["mean"]), tuple(entry["std"]))
    assert len(classifier.classes) == 10
    measured = [key for key in entry if key.startswith("acc_")]
    assert measured
    for key in measured:
        images, labels = photos(key)
        x = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
        right = (classifier.logits(x).argmax(1).numpy() == labels).mean()
        assert round(float(right), 3) == entry[key], key


@needs_data
def test_every_third_party_file_is_known():
    assert {path.stem for path in (Path(DATA) / "models").glob("*.safetensors")} == set(THIRD)

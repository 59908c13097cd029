"""torchvision's classification models: weights by name, and architectures for files."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrsens.errors import AttrsensError, unknown
from attrsens.images import Preprocess
from attrsens.models.labels import Labels, load_labels
from attrsens.models.names import torchvision_names
from attrsens.models.nets import IMAGENET, Net

if TYPE_CHECKING:
    from torch import nn

    from attrsens.models.checkpoints import State

log = logging.getLogger("attrsens")


def net(name: str) -> Net:
    """The architecture of a torchvision name."""
    return Net(lambda classes: build(name, classes), IMAGENET, "imagenet", lambda s: adapt(name, s), 1000, name)


def plausible(state: Iterable[str]) -> list[str]:
    """The names whose tensors could be called so: regnets, which take seconds to build, have a stage of their own."""
    regnet = any("trunk_output" in tensor for tensor in state)
    return [name for name in torchvision_names() if name.startswith("regnet") == regnet]


def build(name: str, classes: int, **options: Any) -> nn.Module:
    """An untrained network; its random initialisation leaves the global generator as it was."""
    import torch
    import torchvision

    if name in ("googlenet", "inception_v3"):  # trained on inputs that their forward pass rescales
        options |= {"transform_input": True, "init_weights": False, "aux_logits": False}
    with torch.random.fork_rng(devices=[]), _quiet():
        module: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
    return module


def adapt(name: str, state: State) -> State:
    """Weights in the names of today's torchvision, without the heads that only training uses.

    SAM's robust GoogLeNet calls the convolution of a pooling branch `branch4_conv` (methods 6).
    """
    from attrsens.models.layouts import renamed, without

    if name.startswith("densenet"):  # named after an older torchvision
        return renamed(state, r"(.*denselayer\d+\.(?:norm|relu|conv))\.(\d\..+)", r"\1\2")
    if name == "googlenet":
        return without(renamed(state, r"(inception\w+)\.branch4_conv\.(.+)", r"\1.branch4.1.\2"), r"aux[12]\.")
    if name == "inception_v3":
        return without(state, r"AuxLogits\.")
    return state


def size(name: str, meta: dict[str, Any]) -> dict[str, Any]:
    """Vision transformers are built for one image size."""
    return {"image_size": int(meta["min_size"][0])} if name.startswith("vit_") else {}


def weights(name: str, choice: str, offline: bool) -> tuple[nn.Module, Preprocess, Labels, Path]:
    """The network with torchvision's weights, and the file they came from.

    Raises:
        AttrsensError: unknown weights, features without a classifier, or not to be had.
    """
    import torchvision

    from attrsens.models.checkpoints import read_checkpoint
    from attrsens.models.layouts import check_state, load_state

    enum = torchvision.models.get_model_weights(name)
    if choice and choice not in enum.__members__:
        raise unknown("weights", choice, list(enum.__members__), f"weights of {name}: {', '.join(enum.__members__)}")
    entry = enum[choice] if choice else enum.DEFAULT
    if not entry.meta.get("categories"):
        raise AttrsensError(f"model {name}@{entry.name}: these weights are features without a classifier")
    path = _fetch(name, entry.url, offline)
    transform = entry.transforms()
    steps = Preprocess(
        transform.resize_size[0],
        transform.crop_size[0],
        transform.interpolation.value,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
    )
    labels = load_labels("imagenet")
    if tuple(entry.meta["categories"]) != labels.names:
        labels = Labels(tuple(entry.meta["categories"]))
    state = adapt(name, read_checkpoint(path).state)
    module = build(name, len(labels), **size(name, entry.meta))
    check_state(module, state, f"{name}@{entry.name}")
    load_state(module, state)
    return module, steps, labels, path


def _fetch(name: str, url: str, offline: bool) -> Path:
    """The weights file in torchvision's own cache, downloaded if need be."""
    import socket
    from urllib.parse import urlparse

    import torch

    from attrsens.models.checkpoints import sha256_file
    from attrsens.models.hub import no_downloads

    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if path.exists():
        return path
    works = f"put the file at {path}, give your own with --arch {name}, or use --model lite0, which needs no download"
    if no_downloads(offline):
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


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

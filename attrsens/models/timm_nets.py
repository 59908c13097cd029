"""timm's models: by name, from the Hugging Face hub, and as architectures for files. Weights go through our reader."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrsens.errors import AttrsensError, unknown
from attrsens.images import Preprocess
from attrsens.models.labels import Labels, load_labels
from attrsens.models.names import timm_names
from attrsens.models.nets import Net

if TYPE_CHECKING:
    from torch import nn

    from attrsens.models.checkpoints import Checkpoint

FILES = ("model.safetensors", "pytorch_model.bin")
# of a repository's own description, what is taken over: plain facts on input and classes
FACTS = (
    *("num_classes", "input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode", "first_conv", "classifier"),
    *("label_offset", "fixed_input_size", "pool_size", "label_names", "label_descriptions"),
)


def net(name: str) -> Net:
    """The architecture of a timm name, for weights from a file.

    Raises:
        AttrsensError: timm has no such model.
    """
    import timm

    check_timm(name)
    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models(), "'attrsens list models' says how to find them")
    facts = _published(name)
    labels = "imagenet" if facts.get("num_classes", 1000) == 1000 else None
    return Net(
        lambda classes: _build(name, num_classes=classes), _steps(facts), labels, classes=1000, identity=f"timm/{name}"
    )


def check_timm(name: str) -> None:
    """Raise unless timm has the architecture, whatever the tag; needs no torch.

    Raises:
        AttrsensError: suggests the nearest.
    """
    base = name.partition(".")[0]
    if base not in timm_names():
        raise unknown("timm model", base, timm_names(), f"timm has {len(timm_names()):,} architectures")


def weights(name: str, offline: bool, keep: Path | None) -> tuple[nn.Module, Preprocess, Labels | None, Checkpoint]:
    """The network of a timm name with its published weights.

    Raises:
        AttrsensError: unknown, without weights, or not to be had.
    """
    import timm

    arch, _, tag = name.partition(".")
    tags = [n.partition(".")[2] for n in timm.list_pretrained(f"{arch}*") if n.partition(".")[0] == arch]
    if not tags:
        raise AttrsensError(f"model timm/{name}: timm has no weights for it; give a file with --arch timm/{arch}")
    if tag and tag not in tags:
        raise unknown("weights", tag, tags, f"weights of timm/{arch}: {', '.join(tags)}")
    facts = _published(name)
    repo, file = facts.get("hf_hub_id"), facts.get("hf_hub_filename")
    if not repo:
        raise AttrsensError(f"model timm/{name}: its weights are not on the hub; give a file with --arch timm/{arch}")
    return _load(f"model timm/{name}", arch, facts, {}, repo, [file] if file else FILES, "", offline, keep)


def hub_weights(
    where: str, offline: bool, keep: Path | None
) -> tuple[nn.Module, Preprocess, Labels | None, Checkpoint, str]:
    """The network of `OWNER/REPO[@REVISION]` on the hub, as timm saves them, and its architecture.

    Raises:
        AttrsensError: not a timm repository, or not to be had.
    """
    from timm.models._hub import _parse_model_cfg

    from attrsens.models.hub import hub_file

    repo, _, revision = where.partition("@")
    what = f"model hf-hub:{where}"
    path = hub_file(what, repo, ["config.json"], revision=revision, offline=offline)
    try:
        data = json.loads(path.read_bytes())
        cfg, arch, arguments = _parse_model_cfg(data, {})
        if not isinstance(arch, str) or not isinstance(cfg, dict) or not isinstance(arguments, dict):
            raise TypeError("names no architecture")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise AttrsensError(f"{what}: its config.json names no timm architecture; only timm models load so") from None
    check_timm(arch)
    facts = {k: cfg[k] for k in FACTS if k in cfg}
    name = arch.partition(".")[0]
    return *_load(what, name, facts, arguments, repo, FILES, revision, offline, keep), name


def _load(
    what: str,
    arch: str,
    facts: dict[str, Any],
    arguments: dict[str, Any],
    repo: str,
    files: Any,
    revision: str,
    offline: bool,
    keep: Path | None,
) -> tuple[nn.Module, Preprocess, Labels | None, Checkpoint]:
    from attrsens.models.checkpoints import read_checkpoint
    from attrsens.models.hub import hub_file

    if facts.get("num_classes") == 0:
        raise AttrsensError(f"{what}: these weights are features without a classifier")
    steps = _steps(facts)
    checkpoint = read_checkpoint(hub_file(what, repo, files, revision=revision, offline=offline), keep)
    # timm's own filters turn older layouts into today's; then it loads strictly
    cfg = facts | {"state_dict": dict(checkpoint.state), "source": "", "custom_load": False}
    try:
        module = _build(arch, pretrained=True, pretrained_cfg=cfg, **arguments)
    except Exception as error:  # names, shapes and arguments that do not fit, of any type
        text = " ".join(str(error).split())
        raise AttrsensError(f"{what}: weights do not fit the architecture {arch}: {text[:200]}") from None
    return module, steps, _labels(facts), checkpoint


def _published(name: str) -> dict[str, Any]:
    """What timm itself says of a model and its weights."""
    import timm

    cfg: Any = timm.get_pretrained_cfg(name)
    return dict(cfg.to_dict()) if cfg else {}


def _build(arch: str, **options: Any) -> nn.Module:
    import timm
    import torch

    with torch.random.fork_rng(devices=[]):
        module: nn.Module = timm.create_model(arch, **options)
    return module


def _steps(facts: dict[str, Any]) -> Preprocess:
    """timm's evaluation transform: resize to side / crop_pct, centre crop.

    Raises:
        AttrsensError: a transform that has no such form.
    """
    try:
        channels, height, width = facts.get("input_size") or (3, 224, 224)
        crop = float(facts.get("crop_pct") or 0.875)
        mode, interp = facts.get("crop_mode") or "center", facts.get("interpolation") or "bicubic"
        mean = tuple(float(v) for v in facts.get("mean") or (0.485, 0.456, 0.406))
        std = tuple(float(v) for v in facts.get("std") or (0.229, 0.224, 0.225))
        resize = math.floor(int(width) / crop)
    except (TypeError, ValueError, ZeroDivisionError):
        raise AttrsensError("timm: its description of the input cannot be read; give --preprocess") from None
    if height != width or mode not in ("center", "squash"):
        raise AttrsensError(f"timm: inputs of {height} x {width} with crop mode {mode} are not supported")
    if len(mean) != channels:
        mean, std = mean[:1] * channels, std[:1] * channels
    return Preprocess(resize, int(width), interp, mode == "squash", mean, std)


def _labels(facts: dict[str, Any]) -> Labels | None:
    """Class names: the repository's own, else ImageNet's where there are a thousand classes."""
    count, names = facts.get("num_classes"), facts.get("label_names")
    imagenet = load_labels("imagenet")
    if isinstance(names, (list, tuple)) and len(names) == count:
        words = facts.get("label_descriptions")
        words = words if isinstance(words, dict) else {}
        if tuple(names) == imagenet.wnids:
            return imagenet
        return Labels(tuple(str(words.get(n, n)) for n in names))
    return imagenet if count == len(imagenet) else None

"""timm's models: by name, from the Hugging Face hub, and as architectures for files. Weights go through our reader."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attrsens.errors import AttrsensError, unknown
from attrsens.images import Preprocess
from attrsens.models.labels import Labels, load_labels
from attrsens.models.names import timm_names
from attrsens.models.nets import Net

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from attrsens.models.checkpoints import Checkpoint

FILES = ("model.safetensors", "pytorch_model.bin")
# of a repository's own description, what is taken over: plain facts on input and classes
FACTS = (
    *("num_classes", "input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode", "first_conv", "classifier"),
    *("label_offset", "fixed_input_size", "pool_size", "label_names", "label_descriptions"),
)
CONFIG = 16 * 2**20  # bytes of a config.json
NUMBER = 100_000  # the largest that an argument of a network may have
# arguments with which timm would read other weights than those of our reader, or return another network
FOREIGN = re.compile("pretrained.*|checkpoint_path|cache_dir|model_cfg|features_only|feature_cfg|kwargs_filter")


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
    """The network of `OWNER/REPO[@REVISION]` on the hub, as timm saves them, and its architecture with its arguments.

    Raises:
        AttrsensError: not a timm repository, or not to be had.
    """
    from timm.models._hub import _parse_model_cfg

    from attrsens.models.checkpoints import some
    from attrsens.models.hub import hub_file

    repo, _, revision = where.partition("@")
    what = f"model hf-hub:{where}"
    path = hub_file(what, repo, ["config.json"], revision=revision, offline=offline)
    try:
        if path.stat().st_size > CONFIG:
            raise ValueError("too large")
        data = json.loads(path.read_bytes())
        cfg, arch, arguments = _parse_model_cfg(data, {})
        if not isinstance(cfg, dict) or not isinstance(arguments, dict) or not re.fullmatch(r"[\w.-]{1,100}", arch):
            raise TypeError("names no architecture")
    except Exception:  # timm reads the untrusted file without checking it
        raise AttrsensError(f"{what}: its config.json names no timm architecture; only timm models load so") from None
    check_timm(arch)
    bad = [name for name, value in arguments.items() if FOREIGN.fullmatch(name) or not _modest(value)]
    if bad:
        raise AttrsensError(f"{what}: its config.json gives model_args that no network needs: {some(bad)}")
    name = arch.partition(".")[0]
    found = _load(what, name, cfg, arguments, repo, FILES, revision, offline, keep)
    return *found, f"{name}\n{json.dumps(arguments, sort_keys=True)}"


def _modest(value: Any) -> bool:
    """Whether an argument's numbers are such that no loop over them and no image of that side is out of hand."""
    if isinstance(value, (list, dict)):
        return all(_modest(v) for v in (value.values() if isinstance(value, dict) else value))
    return not isinstance(value, (int, float)) or abs(value) <= NUMBER


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
    # timm's own filters turn older layouts into today's; then it loads strictly, and from nowhere else
    cfg = {k: facts[k] for k in FACTS if k in facts}
    state = dict(checkpoint.state)
    try:
        with _no_larger_than(state):
            _rehearse(arch, pretrained_cfg=cfg, **arguments)
            module = _build(arch, pretrained=True, pretrained_cfg=cfg | {"state_dict": state}, **arguments)
    except Exception as error:  # names, shapes and arguments that do not fit, of any type
        text = " ".join(str(error).split())
        raise AttrsensError(f"{what}: weights do not fit the architecture {arch}: {text[:200]}") from None
    return module, steps, _labels(facts), checkpoint


class TooLarge(Exception):
    """A network that its weights cannot fill."""


def _rehearse(arch: str, **options: Any) -> None:
    """Build the network without memory for its weights, where it can be built so, to see how large it grows."""
    import torch

    try:
        with torch.device("meta"):
            _build(arch, **options)
    except TooLarge:
        raise
    except Exception:  # some compute their widths with tensors; what is really wrong, the real network tells
        return


@contextmanager
def _no_larger_than(state: Mapping[str, Tensor]) -> Iterator[None]:
    """Stop building a network that grows far beyond its weights, before it takes the memory."""
    from torch.nn.modules.module import register_module_parameter_registration_hook

    left = 10**7 + 8 * sum(tensor.numel() for tensor in state.values())

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        left -= parameter.numel() if parameter is not None else 0
        if left < 0:
            raise TooLarge("the network is far larger than its weights")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


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
        resize, width, height = math.floor(int(width) / crop), int(width), int(height)
        if not {channels, len(mean), len(std)} <= {1, 3} or not isinstance(interp, str) or not isinstance(mode, str):
            raise ValueError("neither grey nor colour")
    except (TypeError, ValueError, ArithmeticError):
        raise AttrsensError("timm: what is said of the model's input cannot be used") from None
    if height != width or mode not in ("center", "squash"):
        raise AttrsensError(f"timm: inputs of {height} x {width} with crop mode {mode[:20]!r} are not supported")
    if len(mean) != channels:
        mean, std = mean[:1] * channels, std[:1] * channels
    return Preprocess(resize, width, interp, mode == "squash", mean, std)


def _labels(facts: dict[str, Any]) -> Labels | None:
    """Class names: the repository's own, else ImageNet's where there are a thousand classes."""
    count, names = facts.get("num_classes"), facts.get("label_names")
    imagenet = load_labels("imagenet")
    if isinstance(names, (list, tuple)) and len(names) == count:
        words = facts.get("label_descriptions")
        words = words if isinstance(words, dict) else {}
        names = tuple(map(str, names))
        if names == imagenet.wnids:
            return imagenet
        return Labels(tuple(str(words.get(n, n)) for n in names))
    return imagenet if count == len(imagenet) else None

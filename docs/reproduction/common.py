"""The images of studies that compare nets: the first of CIFAR-10's test set that every net gets right."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from study import ALL, LADDER, located

COUNT = 100
LIST = Path(__file__).parent / "common.txt"


def listed() -> list[int]:
    """Their places in cifar10-test.npz, whose classes take turns."""
    return [int(word) for word in LIST.read_text(encoding="utf-8").split()]


def find(data: Path, nets: Path) -> list[int]:
    """The places of the first `COUNT` images of cifar10-test.npz whose class all nets put first; loads every net."""
    import attrsens
    from attrsens.engine.inputs import expand

    names = [located(name).format(data=data, nets=nets) for name in dict.fromkeys((*ALL, *LADDER))]
    models = [attrsens.load(name) for name in names]
    found: list[int] = []
    for place, source in enumerate(expand([str(data / "cifar10-test.npz")])):
        image = source.load()
        if all(_first(model, image) == image.label for model in models):
            found.append(place)
        if len(found) == COUNT:
            return found
    raise LookupError(f"fewer than {COUNT} images that all nets get right")


def _first(model, image) -> int:  # type: ignore[no-untyped-def]
    import torch

    pixels = torch.from_numpy(model.preprocess.apply(image))[None].to(model.device)
    with torch.inference_mode():
        return int(model.logits(pixels).argmax())


def write(data: Path, out: Path) -> None:
    """An npz of these images, in the format of the one that they come from."""
    with np.load(data / "cifar10-test.npz", allow_pickle=False) as file:
        parts = {name: file[name] for name in file.files}
    places, ends = listed(), parts["offsets"]
    scans = [parts["data"][ends[i] : ends[i + 1]] for i in places]
    parts |= {name: parts[name][places] for name in ("labels", "number")}
    parts |= {"data": np.concatenate(scans), "offsets": np.cumsum([0, *map(len, scans)])}
    part = out.with_name(f"{out.stem}.{os.getpid()}.npz")
    np.savez(part, **parts)
    part.replace(out)

"""What `explain.py` measures: of every method how much work, and the passes that its maths needs."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from typing import Any

PATCH, SPREAD, SEED, SIDE = 29, 0.15, 0, 224
SEGMENTS = {"segments": 50, "algorithm": "slic", "fill": "black"}
CLOSE, LOOSE = 1.15, 1.3
BARS = {  # attrsens / floor at most, on lite0; what changes the backward pass itself (gbp, lrp, ...) has no such bar
    **dict.fromkeys(("grad", "gi", "sg", "ig", "ug", "vargrad", "sgsq", "sp", "gradcam"), CLOSE),
    **dict.fromkeys(("lime", "kshap", "rise", "mp", "agi", "bsm", "big", "bsg"), LOOSE),
}


@dataclass(frozen=True)
class Work:
    """One method's work.

    Attributes:
        text: what is stated in the table.
        parameters: what differs from the method's defaults; it is explained in pixel space unless they say otherwise.
        forward, backward: passes an image.
        images: how many advance together (`raw_together`).
        single: it is one image's single pass, which no batch can hold more of; the floor is at batch 1.
        relu: ReLU in place of ReLU6, on both sides: the libraries' rules know no other.
        until_layer: the way back ends at Grad-CAM's layer.
    """

    method: str
    text: str
    parameters: dict[str, Any]
    forward: int
    backward: int
    images: int = 1
    single: bool = False
    relu: bool = False
    until_layer: bool = False

    @property
    def kinds(self) -> dict[str, int]:
        """All images' passes by kind: forward, both, twice (one forward, two back)."""
        twice = self.backward // 2 if self.backward > self.forward else 0
        both = self.backward - 2 * twice
        parts = {"forward": self.forward - both - twice, "both": both, "twice": twice}
        if self.until_layer:  # the first pass of gradcam and ggradcam
            parts |= {"layer": 1, "both": both - 1}
        return {kind: count * self.images for kind, count in parts.items() if count}


def works(model: str, a: Namespace) -> dict[str, Work]:
    """Every method's work under the sizes that were asked for."""
    stride = a.stride_resnet50 if model == "resnet50" else a.stride
    places = ((SIDE - PATCH) // stride + 1) ** 2
    logit: dict[str, Any] = {"output": "logit"}
    noise = {**logit, "spread": SPREAD, "seed": SEED}
    n, few, s = a.n, a.few, a.search_steps
    search = {"search": "pgd", "search_steps": s, "bisect": a.bisect, "polish": a.polish, "seed": SEED}
    forward = 4 * (s + 1) + 2 * a.bisect + a.polish * (2 + a.bisect) + 1  # 4 runs of PGD, and the prediction
    backward = 4 * s + a.polish
    found = f"{a.images} images together, search_steps={s}, bisect={a.bisect}, polish={a.polish}"
    rows = [
        Work("grad", "1 image", logit, 1, 1, single=True),
        Work("gi", "1 image", logit, 1, 1, single=True),
        Work("sg", f"n={n}", {**noise, "n": n}, n, n),
        Work("ig", f"steps={a.steps}", {**logit, "steps": a.steps, "rule": "captum_trapezoid"}, a.steps, a.steps),
        Work("ug", f"n={few}", {**noise, "n": few}, few, few),
        Work("vargrad", f"n={few}", {**noise, "n": few}, few, few),
        Work("sgsq", f"n={few}", {**noise, "n": few}, few, few),
        Work("gbp", "1 image, ReLU", logit, 1, 1, single=True, relu=True),
        Work("gradcam", "1 image", logit, 1, 1, single=True, until_layer=True),
        Work("ggradcam", "1 image, ReLU", logit, 2, 2, single=True, relu=True, until_layer=True),
        Work("lrp", "1 image, eps=1e-6", {**logit, "space": "normalized"}, 1, 1, single=True),
        Work("deeplift", "1 image, ReLU", logit, 2, 1, single=True, relu=True),
        Work(
            "sp",
            f"patch {PATCH}, stride {stride}",
            {**logit, "patch_size": PATCH, "stride": stride, "fill": "black"},
            places + 1,
            0,
        ),
        Work("lime", f"n={a.lime_n}, 50 superpixels", {**SEGMENTS, "n": a.lime_n, "seed": SEED}, a.lime_n, 0),
        Work("rise", f"n={a.rise_n}", {"n": a.rise_n, "seed": SEED}, a.rise_n, 0),
        Work("kshap", f"n={a.kshap_n}, 50 superpixels", {**SEGMENTS, "n": a.kshap_n}, a.kshap_n + 2, 0),
        Work(
            "mp",
            f"{a.images} images together, steps={a.mp_steps}, init=ones",
            {"steps": a.mp_steps, "init": "ones", "seed": SEED},
            a.mp_steps,
            a.mp_steps,
            images=a.images,
        ),
        Work("bsm", found, {**logit, **search}, forward + 1, backward + 1, images=a.images),
        Work(
            "big",
            f"{found}, steps={few}",
            {**logit, **search, "steps": few, "rule": "captum_trapezoid"},
            forward + few,
            backward + few,
            images=a.images,
        ),
        Work(
            "bsg",
            f"n={few}, search_steps={s}",
            {**logit, "n": few, "search_steps": s},
            few * (s + 1) + 1,
            few * (s + 1),
        ),
        Work(
            "agi",
            f"k={a.k}, steps={a.agi_steps}",
            {"k": a.k, "steps": a.agi_steps, "mode": "path"},
            a.k * (a.agi_steps + 1),
            2 * a.k * a.agi_steps,
        ),
    ]
    return {row.method: row for row in rows}


METHODS = (
    *("grad", "gi", "sg", "ig", "ug", "vargrad", "sgsq", "gbp", "gradcam", "ggradcam", "lrp", "deeplift"),
    *("sp", "lime", "rise", "kshap", "mp", "bsm", "big", "bsg", "agi"),
)

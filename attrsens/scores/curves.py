"""What the network says while pixels are hidden, or shown, in the order in which a map ranks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from attrsens.scores._case import Answers, Case, Finding, Look, NoValue, stack
from attrsens.spec import SCORES, Param

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Numbers = NDArray[np.float64]

BOUNDED = {"output": "prob"}  # the range is of probabilities
FILLS = ("mean", "black", "grey", "white", "blur")

Fill = Annotated[
    str,
    Param(
        "what a hidden pixel shows: mean (zero of the normalised tensor), black, grey, white, or blur (RISE's 11 x 11 "
        "Gaussian of sd 5 on the normalised tensor, zeros outside)",
        choices=FILLS,
        sweep=("mean", "black", "blur"),
        reference="mean",
        source="methods 4.2; RISE inserts into the blurred image",
    ),
]
Step = Annotated[
    int,
    Param(
        "pixels hidden or shown at a time (0: a 28th of the image, rounded up; 1792 at 224 x 224)",
        min=0,
        scale="ratio",
        source="SAM code: 224 x 8; RISE: 224",
        pixels=2,
    ),
]
Area = Annotated[
    str,
    Param(
        "raw: area under the curve, by trapezoids over the share of pixels changed; norm: that over the curve's "
        "largest value, by which a flat curve scores 1",
        choices=("raw", "norm"),
        sweep=("raw", "norm"),
        reference="raw",
        source="science C-12; norm: SAM code",
    ),
]
Output = Annotated[
    str, Param("what the curve is of: softmax probability or logit", choices=("prob", "logit"), source="methods 4.2")
]


@SCORES(
    "insertion",
    version=1,
    formula="area ({auc}) under {output} of the class against the share of pixels shown, from an image of {fill}, "
    "largest value of the map (mean of its channels) first, in steps of {step} pixels (0: 1/28 of all)",
    direction="higher",
    range=(0.0, 1.0),
    source="Petsiuk et al. 2018; SAM; methods 4.2; science C-12",
    cost="pixels / step F; 28 F by default",
    judges="map",
    floor="phase",
    bounded=BOUNDED,
)
def insertion(
    case: Case, *, fill: Fill = "mean", step: Step = 0, auc: Area = "raw", output: Output = "prob"
) -> Answers:
    """How soon the class appears when pixels are shown in the order of the map.

    Area under f against the share of pixels shown: none at the left end, all at the right. In [0, 1] for probabilities,
    unbounded for logits. Read backwards it is the deletion of the least relevant pixels first. Petsiuk et al. 2018;
    methods 4.2. The image with everything hidden is looked at once for all maps, the clean one not at all.

    Raises:
        NoValue: the map is constant; step takes all pixels at once; auc=norm and the curve is nowhere above 0.
    """
    course = _Course(case, fill, step)
    hidden, shown = yield course.nothing(output), course.look("keep", output)
    return _finding(course.insertion(hidden, shown, output), auc)


@SCORES(
    "deletion",
    version=1,
    formula="area ({auc}) under {output} of the class against the share of pixels replaced by {fill}, "
    "largest value of the map (mean of its channels) first, in steps of {step} pixels (0: 1/28 of all)",
    direction="lower",
    range=(0.0, 1.0),
    source="Petsiuk et al. 2018; SAM; methods 4.2; science C-12",
    cost="pixels / step F; 28 F by default",
    judges="map",
    floor="phase",
    bounded=BOUNDED,
)
def deletion(case: Case, *, fill: Fill = "mean", step: Step = 0, auc: Area = "raw", output: Output = "prob") -> Answers:
    """How soon the class goes when pixels are hidden in the order of the map.

    Area under f against the share of pixels hidden: none at the left end, all at the right. In [0, 1] for
    probabilities, unbounded for logits. Petsiuk et al. 2018; methods 4.2.

    Raises:
        NoValue: the map is constant; step takes all pixels at once; auc=norm and the curve is nowhere above 0.
    """
    course = _Course(case, fill, step)
    hidden, left = yield course.nothing(output), course.look("hide", output)
    return _finding(course.deletion(hidden, left, output), auc)


@SCORES(
    "srg",
    version=1,
    formula="area ({auc}) under {output} of the class against the share of pixels replaced by {fill}, smallest value "
    "of the map (mean of its channels) first, less the same with the largest first, in steps of {step} pixels "
    "(0: 1/28 of all)",
    direction="higher",
    range=(-1.0, 1.0),
    source="Bluecher et al. 2024; science S-2",
    cost="2 pixels / step - 1 F; 55 F by default, and none beside insertion and deletion",
    judges="map",
    floor="phase",
    bounded=BOUNDED,
)
def srg(case: Case, *, fill: Fill = "mean", step: Step = 0, auc: Area = "raw", output: Output = "prob") -> Answers:
    """Symmetric relevance gain: how much longer the class lasts if the least relevant pixels go first.

    AUC(least relevant first) - AUC(most relevant first), both of deletion, which is insertion's area less deletion's:
    the least relevant first is insertion read backwards, image by image. The two areas are in the details; the curve is
    the difference at deletion's shares. A map and its negative have opposite values, but for ties and a
    last step that is shorter. Bluecher et al.
    2024; science S-2.

    Raises:
        NoValue: the map is constant; step takes all pixels at once; auc=norm and a curve is nowhere above 0.
    """
    import numpy as np

    course = _Course(case, fill, step)
    hidden, left, shown = yield course.nothing(output), course.look("hide", output), course.look("keep", output)
    shares, most = course.deletion(hidden, left, output)
    back, least = course.insertion(hidden, shown, output)
    areas = {"least_first": area(back, least, auc), "most_first": area(shares, most, auc)}
    gain = np.interp(shares, 1 - back[::-1], least[::-1]) - most
    return Finding(areas["least_first"] - areas["most_first"], curve=list(gain), details=dict(areas))


class _Course:
    """The images on the way from all pixels to none, in the order of a map.

    Args:
        step: pixels a time; 0 for a 28th of the image, rounded up.

    Raises:
        NoValue: the map is constant; the step takes all pixels at once.
    """

    def __init__(self, case: Case, fill: str, step: int) -> None:
        import hashlib

        heatmap = case.map if case.map.dim() == 2 else case.map.mean(0)
        flat = heatmap.flatten()
        if bool((flat == flat[0]).all()):
            raise NoValue("the map is constant and ranks no pixel before another")
        order = case.order
        step = step or -(-len(order) // 28)
        if step >= len(order):
            raise NoValue(f"step takes all {len(order)} pixels at once")
        self.case, self.fill = case, fill
        self.pixels = case.pixels
        self.order = order.to(case.pixels.device)
        self.counts = [*range(0, len(order), step), len(order)]
        self.name = fill, step, hashlib.blake2b(order.numpy().tobytes(), digest_size=16).hexdigest()
        self.substrate = substrate(case, fill)

    def nothing(self, output: str) -> Look:
        """The image with every pixel hidden, which all maps share."""
        hidden = self.substrate
        return Look(("hidden", self.fill), stack(1, lambda at: hidden.expand(len(at), *hidden.shape), hidden), output)

    def look(self, kind: str, output: str) -> Look:
        """The images between the two ends: with the first pixels of the order hidden, or with only those shown
        (keep)."""
        inner = self.counts[1:-1]
        shape = self.pixels.shape
        start, end = (self.substrate, self.pixels) if kind == "keep" else (self.pixels, self.substrate)

        def build(at: range) -> Tensor:
            """Each image is the one before with a step's pixels changed: masks would take ten times as long."""
            images = start.new_empty(len(at), shape[0], shape[1] * shape[2])
            current, goal, done = start.reshape(shape[0], -1).clone(), end.reshape(shape[0], -1), 0
            for place, i in enumerate(at):
                pixels = self.order[done : inner[i]]
                current.index_copy_(1, pixels, goal.index_select(1, pixels))
                images[place], done = current, inner[i]
            return images.reshape(len(at), *shape)

        return Look((kind, *self.name), stack(len(inner), build, self.pixels), output)

    def insertion(self, hidden: Tensor, shown: Tensor, output: str) -> tuple[Numbers, Numbers]:
        """(share of pixels shown, output)."""
        return self._curve(float(hidden[0]), shown, self.case.clean[output])

    def deletion(self, hidden: Tensor, left: Tensor, output: str) -> tuple[Numbers, Numbers]:
        """(share of pixels hidden, output)."""
        return self._curve(self.case.clean[output], left, float(hidden[0]))

    def _curve(self, first: float, between: Tensor, last: float) -> tuple[Numbers, Numbers]:
        import numpy as np

        return np.array(self.counts) / self.counts[-1], np.array([first, *between.tolist(), last])


def substrate(case: Case, fill: str) -> Tensor:
    """The image with every pixel hidden, (C, H, W) pixels."""
    if fill != "blur":
        return case.colour(fill).expand_as(case.pixels)
    mean = case.colour("mean")  # of the normalised tensor the zero, so that its scale cancels
    return mean + _blurred(case.pixels - mean)


def _blurred(x: Tensor) -> Tensor:
    """RISE's blur: its 11 taps are SciPy's answer to an impulse among 11, which folds the tails of sd 5 back in."""
    import numpy as np
    import torch.nn.functional as F
    from scipy.ndimage import gaussian_filter1d

    taps = gaussian_filter1d(np.eye(11)[5], 5.0)
    kernel = x.new_tensor(taps).reshape(1, 1, 1, -1)
    out = x[:, None]
    for _ in range(2):  # rows, then columns
        out = F.conv2d(F.pad(out, (5, 5, 0, 0)), kernel).transpose(-1, -2)
    return out[:, 0]


def area(shares: Numbers, values: Numbers, auc: str) -> float:
    """Area under a curve by trapezoids; for auc=norm over its largest value.

    Raises:
        NoValue: no value is above 0, and auc=norm.
    """
    found = float(((values[1:] + values[:-1]) / 2 * (shares[1:] - shares[:-1])).sum())
    if auc == "raw":
        return found
    top = float(values.max())
    if top <= 0:
        raise NoValue("auc=norm divides by the largest value, and none is above 0")
    return found / top


def _finding(course: tuple[Numbers, Numbers], auc: str) -> Finding:
    shares, values = course
    return Finding(area(shares, values, auc), curve=list(values))

"""HSE (Yeh et al. 2019, How sensitive are sensitivity-based explanations?)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from estimates import Estimate, difference, level
from reading import Numbers, each
from study import LADDER, LINFS, SEEDS, STDS, Claim, Run, Study, Tables, cifar, common

MNIST = "{data}/mnist1000.npz --classes mnist"
NETS = ("mnist-conv-small", "mnist-cnn-a-adv")
METHODS = ("grad", "gi", "ig", "gbp", "ggradcam")
SCORES = ("max_sensitivity", "mean_sensitivity", "faithfulness")
# rows of the table: regular net, robust net; plain, smoothed; largest and mean sensitivity, faithfulness
PUBLISHED = {
    "mnist": {
        "grad": ((0.912, 0.849, 0.632), (0.628, 0.551, 0.802)),
        "grad+smooth": ((0.366, 0.337, 0.830), (0.289, 0.228, 0.857)),
        "gi": ((0.678, 0.574, 0.448), (0.278, 0.212, 0.735)),
        "gi+smooth": ((0.316, 0.275, 0.523), (0.160, 0.128, 0.784)),
        "ig": ((0.551, 0.460, 0.465), (0.193, 0.155, 0.722)),
        "ig+smooth": ((0.282, 0.246, 0.488), (0.136, 0.111, 0.738)),
        "gbp": ((0.909, 0.850, 0.619), (0.638, 0.553, 0.800)),
        "gbp+smooth": ((0.368, 0.337, 0.826), (0.276, 0.224, 0.851)),
        "ggradcam": ((0.891, 0.837, 0.638), (0.626, 0.550, 0.788)),
        "ggradcam+smooth": ((0.360, 0.330, 0.817), (0.280, 0.227, 0.848)),
    },
    "cifar": {
        "grad": ((1.317, 1.179, 0.056), (0.976, 0.812, 0.358)),
        "grad+smooth": ((1.252, 1.169, 0.213), (0.553, 0.512, 0.682)),
        "gi": ((1.375, 1.205, 0.073), (0.974, 0.836, 0.351)),
        "gi+smooth": ((1.236, 1.160, 0.232), (0.653, 0.587, 0.594)),
        "ig": ((1.325, 1.174, 0.084), (0.750, 0.640, 0.409)),
        "ig+smooth": ((1.349, 1.240, 0.163), (0.578, 0.521, 0.529)),
        "gbp": ((1.310, 1.179, 0.067), (0.945, 0.817, 0.367)),
        "gbp+smooth": ((1.273, 1.169, 0.217), (0.561, 0.513, 0.643)),
        "ggradcam": ((1.516, 1.199, 0.062), (0.899, 0.769, 0.270)),
        "ggradcam+smooth": ((1.328, 1.179, 0.186), (0.593, 0.532, 0.530)),
    },
}
WORDS = {
    "max_sensitivity": "less sensitive (largest of 50)",
    "mean_sensitivity": "less sensitive (mean of 50)",
    "faithfulness": "more faithful",
}


def table(run: str, regular: Sequence[str], robust: Sequence[str], alone: str, whose: str) -> list[Claim]:
    """The claims of one of the two tables: smoothing helps, robust training helps."""
    numbers, claims = PUBLISHED[run], []
    for score, words in WORDS.items():
        column = SCORES.index(score)
        for method in METHODS:
            plain, smoothed = (numbers[name][0][column] for name in (method, f"{method}+smooth"))
            alike = score != "faithfulness" and smoothed > plain  # the exception that the paper names
            text = f"Smoothing leaves {method} as it is: not {words} (margin .1), regular net"
            claims.append(
                Claim(
                    f"smooth, {method}, {score}",
                    text if alike else f"Smoothing makes {method} {words}, regular net",
                    f"{plain} to {smoothed}",
                    {
                        alone: lambda t, m=method, s=score: difference(  # type: ignore[misc]
                            t[run](s, regular, method=f"{m}+smooth"), t[run](s, regular, method=m)
                        )
                    },
                    effect=None if alike else round(smoothed - plain, 3),
                    within=0.1 if alike else None,
                )
            )
        for method in METHODS:
            a, b = (numbers[method][i][column] for i in (0, 1))
            claims.append(
                Claim(
                    f"robust, {method}, {score}",
                    f"Robust training makes {method} {words}",
                    f"{a} to {b}",
                    {
                        whose: lambda t, m=method, s=score: difference(  # type: ignore[misc]
                            t[run](s, robust, method=m), t[run](s, regular, method=m)
                        )
                    },
                    effect=round(b - a, 3),
                )
            )
    return claims


mnist = Study(
    "hse-mnist",
    "Sensitivity and faithfulness of five explanations and their smoothed versions, MNIST.",
    {
        "mnist": Run(
            f"score {MNIST} --limit 100 "
            + " ".join(f"--model {{data}}/models/{net}.safetensors" for net in NETS)
            + " --preset hse-mnist --no-calibrate",
            "first 100 MNIST test images",
        )
    },
    table("mnist", [NETS[0]], [NETS[1]], NETS[0], "two nets of third parties"),
    "Two nets of different architecture (a regular and an adversarially trained one): a difference between them need "
    "not be robustness.",
)
cifar_table = Study(
    "hse-cifar",
    "Sensitivity and faithfulness of five explanations and their smoothed versions, CIFAR-10.",
    {"cifar": cifar("score", "--preset hse-cifar --no-calibrate", 8, SEEDS)},
    table("cifar", STDS, LINFS, "3 std seeds", "3 std and 3 linf seeds"),
    "Eight images, of any top-1 class: five minutes an image for the six nets.",
)


def slope(t: Tables, score: str, method: str) -> Numbers:
    """Slope of a score over the rungs of the ladder, image by image."""
    parts = [{"ladder": t["cifar"](score, [net], method=method)[net]} for net in LADDER]
    xs = np.arange(len(parts), dtype=np.float64)
    xs -= xs.mean()
    return each(lambda *v: float((xs * np.asarray(v)).sum() / (xs**2).sum()), *parts)


LEVELS = {  # slope a rung of the published four
    ("grad", "max_sensitivity"): (0.923, 0.879, 0.836, 0.755),
    ("grad", "faithfulness"): (0.652, 0.678, 0.703, 0.736),
    ("grad+smooth", "max_sensitivity"): (0.338, 0.320, 0.302, 0.283),
    ("grad+smooth", "faithfulness"): (0.843, 0.856, 0.858, 0.858),
}
levels = Study(
    "hse-levels",
    "Sensitivity and faithfulness on a ladder of ever more robust nets (L2 budgets 0, .25, .5, 1).",
    {"cifar": common("score", "--preset hse-levels --faithfulness-share 0.1628 --no-calibrate", LADDER)},
    [
        Claim(
            f"{method}, {score}",
            f"The more robust the net, the {WORDS[score]} {method} (slope a rung)",
            " ".join(f"{v:.3f}" for v in values),
            {"4 small nets, one a budget": lambda t, s=score, m=method: level(slope(t, s, m))},  # type: ignore[misc]
            direction=-1 if score == "max_sensitivity" else 1,
        )
        for (method, score), values in LEVELS.items()
    ],
    "CIFAR-10 in place of MNIST, and other levels of robustness.",
    numbers={
        f"{method}, {score}, {net}": lambda t, s=score, m=method, n=net: level(t["cifar"](s, [n], method=m))  # type: ignore[misc]
        for method, score in LEVELS
        for net in LADDER
    },
)


def of_ratio(t: Tables) -> Estimate:
    """How much further the gradient moves than the prediction, both relative; the least that is claimed is 3."""
    return level(t["mnist"]("sensitivity_ratio", [NETS[0]], method="grad"), null=3.0)


ratios = Study(
    "hse-ratio",
    "How much further the gradient moves than the prediction, relative, in a cube of .1.",
    {
        "mnist": Run(
            f"score {MNIST} --limit 100 --model {{data}}/models/{NETS[0]}.safetensors --preset hse-ratio "
            "--no-calibrate",
            "first 100 MNIST test images",
        )
    },
    [
        Claim(
            "ratio",
            "Relative to the prediction the gradient moves at least 3 times as far",
            "3 to 14, by radius",
            {NETS[0]: of_ratio},
            direction=1,
        )
    ],
)


def moved(t: Tables, net: str, method: str) -> Numbers:
    """Distance of unit maps at the worst of fifty random corners."""
    return t["mnist"]("note objective", [net], method=method)


attack = Study(
    "hse-attack",
    "The worst of fifty random corners of the ball of .1, of the gradient and of its smoothing.",
    {
        "mnist": Run(
            f"attack {MNIST} --limit 100 "
            + " ".join(f"--model {{data}}/models/{net}.safetensors" for net in NETS)
            + " --preset hse-attack --format csv",
            "first 100 MNIST test images",
        )
    },
    [
        Claim(
            "smooth",
            "Smoothing makes the worst move smaller, regular net",
            "1.04 to .78, one picture",
            {NETS[0]: lambda t: difference(moved(t, NETS[0], "grad+smooth"), moved(t, NETS[0], "grad"))},
            direction=-1,
        ),
        Claim(
            "robust",
            "Robust training makes the worst move smaller",
            "1.04 to .91, one picture",
            {"two nets of third parties": lambda t: difference(moved(t, NETS[1], "grad"), moved(t, NETS[0], "grad"))},
            direction=-1,
        ),
    ],
    "The published numbers are of one picture, and their order is presumed; CIFAR-10's are of the same kind as the "
    "largest sensitivities of hse-cifar. The two nets are of different architecture: a difference need not be "
    "robustness.",
)


def by_radius(t: Tables, score: str, radius: float) -> Numbers:
    """A score of the smoothed gradient at a smoothing radius."""
    return t["cifar"](score, STDS[:1], smooth_radius=radius)


radius = Study(
    "hse-radius",
    "Sensitivity, faithfulness and distance from the base of the smoothed gradient, by smoothing radius.",
    {"cifar": cifar("sweep", "--preset hse-radius --no-calibrate", 100, STDS[:1])},
    [
        Claim(
            "sensitivity",
            "A larger radius makes the smoothed gradient less sensitive: .3 against 0",
            "a trade-off; no numbers",
            {STDS[0]: lambda t: difference(by_radius(t, "max_sensitivity", 0.3), by_radius(t, "max_sensitivity", 0))},
            direction=-1,
        ),
        Claim(
            "faithfulness",
            "A larger radius makes the smoothed gradient more faithful: .3 against 0",
            "a trade-off; no numbers",
            {STDS[0]: lambda t: difference(by_radius(t, "faithfulness", 0.3), by_radius(t, "faithfulness", 0))},
            direction=1,
        ),
        Claim(
            "deviation",
            "A larger radius takes the smoothed gradient further from the gradient: .5 less .05",
            "a trade-off; no numbers",
            {STDS[0]: lambda t: difference(by_radius(t, "deviation", 0.5), by_radius(t, "deviation", 0.05))},
            direction=1,
        ),
    ],
)

theory = Study(
    "hse-theory",
    "Propositions A.1, 2.1 to 2.4 and B.1, corollaries 2.2 and A.1, theorem 3.1, and the toy function's values.",
    {},
    [
        Claim(
            "inequalities",
            "The inequalities hold on toy networks",
            "proofs",
            cannot="proofs; they are tests (tests/test_closed_forms.py, tests/test_scores_sensitivity.py)",
        )
    ],
)

STUDIES = [mnist, cifar_table, levels, ratios, attack, radius, theory]

"""SAM (Bansal, Agarwal and Nguyen 2020): how maps and scores move with a knob."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, pstdev
from typing import Any

from estimates import Estimate, difference, level, ratio
from reading import Numbers, each
from study import LINF, LITE, SEEDS, STD, Claim, Run, Study, Tables, common, twins

TWO = (STD, LINF, *SEEDS)
Pick = Callable[[Tables, Sequence[str]], Numbers]


def over_values(knob: str, quantity: str = "ssim") -> Pick:
    """A reader of the mean similarity to the reference over the other values of a knob, image by image."""

    def read(t: Tables, nets: Sequence[str]) -> Numbers:
        return each(lambda *v: fmean(v), *t["cifar"].settings(quantity, nets, knob, role="reference").values())

    return read


def robust_less_regular(read: Pick, third: bool = True) -> dict[str, Any]:
    """Evidence for a robust net having more of something."""
    return twins(lambda t, a, b: difference(read(t, b), read(t, a)), third)


def robust_over_regular(read: Pick, third: bool = True) -> dict[str, Any]:
    """Evidence for a robust net having so many times as much."""
    return twins(lambda t, a, b: ratio(read(t, b), read(t, a)), third)


def regular_over_robust(read: Pick, third: bool = True) -> dict[str, Any]:
    """Evidence for a regular net having so many times as much."""
    return twins(lambda t, a, b: ratio(read(t, a), read(t, b)), third)


def effect_of(knob: str, value: float, net: str) -> Callable[[Tables], Estimate]:
    """A knob's effect at one value, as the sweep defines it: 1 - c*, without what another draw does."""

    def measure(t: Tables) -> Estimate:
        (found,) = [e for e in t["cifar"].report["effects"] if e["group"]["model"] == net and e.get("knob") == knob]
        (point,) = [p for p in found["points"] if p["value"] == value]
        ends = point["ci95"] and (point["ci95"][0], point["ci95"][1])
        return Estimate("mean", point["effect"], ends, found["n"], (1, 0), reason=point["reason"])

    return measure


sg_n = Study(
    "sam-sg-n",
    "SmoothGrad at 50, 100, 200, 500 and 800 samples, against 50.",
    {"cifar": common("sweep", "--preset sam-sg-n --no-calibrate")},
    [
        Claim(
            "ssim",
            "SmoothGrad of robust nets is more consistent (SSIM, mean over n)",
            "about 1 for robust nets",
            robust_less_regular(over_values("n")),
            direction=1,
        ),
        Claim(
            "l1",
            "The L1 distance of n = 800 to n = 50 is more than 5 times as large on regular nets",
            "more than 5 times",
            regular_over_robust(lambda t, nets: t["cifar"]("l1", nets, n=800, role="reference")),
            effect=5.0,
            note="distances of maps divided by their largest magnitude",
        ),
    ],
)
sg_std = Study(
    "sam-sg-std",
    "SmoothGrad at three noise levels, against .2; two draws of each.",
    {"cifar": common("sweep", "--preset sam-sg-std --replicates 2 --no-calibrate", (STD, LINF))},
    [
        Claim(
            "effect",
            "SmoothGrad depends on its noise level, beyond what another draw does: 1 - c* of .1 and .2",
            "sensitive, in a figure",
            {net: effect_of("spread", 0.1, net) for net in (STD, LINF)},
            direction=1,
        )
    ],
)


def masks(preset: str, what: str, *claims: Claim) -> Study:
    """A sweep of meaningful perturbation."""
    run = common("sweep", f"--preset {preset} --no-calibrate", TWO)
    note = "At 32 pixels the jitter of 4 of 224 is none."
    return Study(preset, what, {"cifar": run}, claims, note)


def mean_of_three(t: Tables, nets: Sequence[str]) -> Numbers:
    """The mean of the three similarities to the reference, and over the other seeds."""
    return each(lambda *v: fmean(v), *(over_values("seed", name)(t, nets) for name in ("spearman", "hog", "ssim")))


def after_ten(t: Tables, nets: Sequence[str]) -> Numbers:
    """SSIM of the masks after 10 and after 300 iterations."""
    return t["cifar"]("ssim", nets, steps=10, role="reference")


mp_iter = masks(
    "sam-mp-iter",
    "Meaningful perturbation after 10, 150, 300 and 450 iterations, against 300.",
    Claim(
        "ssim",
        "Masks of robust nets depend less on the iteration they stop at (SSIM, mean over values, robust over regular)",
        "1.4 times",
        robust_over_regular(over_values("steps"), third=False),
        effect=1.4,
    ),
    Claim(
        "settled",
        "Masks of robust nets have settled after about 10 iterations: SSIM of 10 to 300 is above .9",
        "about 10 iterations",
        twins(lambda t, a, b: level(after_ten(t, b), null=0.9), third=False),
        direction=1,
        note=".9 is our reading of settled; whether regular nets settle later is the claim above",
    ),
)
mp_seed = masks(
    "sam-mp-seed",
    "Meaningful perturbation from five random first masks, against the first.",
    Claim(
        "ssim",
        "Masks of robust nets depend less on the first mask's seed (mean of three similarities, robust over regular)",
        "1.22 times",
        robust_over_regular(mean_of_three, third=False),
        effect=1.22,
    ),
)
mp_blur = masks(
    "sam-mp-blur",
    "Meaningful perturbation with three blur radii, against 10.",
    Claim(
        "ssim",
        "Masks of robust nets depend less on the blur radius (SSIM, robust less regular)",
        "more stable, by eye",
        robust_less_regular(over_values("blur_radius"), third=False),
        direction=1,
    ),
)
mp_init = masks(
    "sam-mp-init",
    "Meaningful perturbation from a disc, from ones and from noise, against the disc.",
    Claim(
        "ssim",
        "Masks depend on where they start (SSIM to the reference, regular nets)",
        "no numbers",
        twins(lambda t, a, b: level(over_values("init")(t, a)), third=False),
        cannot="no number to hold it to, and an SSIM is at most 1 whatever happens",
    ),
)


def limes(preset: str, knob: str, what: str) -> Study:
    """A sweep of LIME."""
    claim = Claim(
        "ssim",
        f"LIME of robust nets is not more consistent when {knob} changes (SSIM, robust less regular; margin .05)",
        "not more",
        robust_less_regular(over_values(knob), third=False),
        margin=0.05,
    )
    run = common("sweep", f"--preset {preset} --no-calibrate", TWO)
    return Study(preset, what, {"cifar": run}, [claim], "Superpixels of pictures of 32 pixels are about 4 pixels wide.")


lime_seed = limes("sam-lime-seed", "seed", "LIME with five seeds, against the first.")
lime_n = limes("sam-lime-n", "n", "LIME with 500 samples, against 1,000.")
lime_k = limes("sam-lime-k", "segments", "LIME with 25, 50 and 100 superpixels, against 50.")
sp_l = Study(
    "sam-sp-l",
    "Sliding patch with five far apart patch sizes, against the middle one; sizes scaled from 224 pixels.",
    {"cifar": common("sweep", "--preset sam-sp-l --no-calibrate")},
    [
        Claim(
            "ssim",
            "Sliding patch is not more consistent on robust nets (SSIM, robust less regular; margin .05)",
            "not more",
            robust_less_regular(over_values("patch_size")),
            margin=0.05,
        )
    ],
)


def neighbours(t: Tables) -> Estimate:
    """SSIM of maps whose patches are a pixel apart."""
    parts = t["lite0"].settings("ssim", ["lite0"], "patch_size", role="reference").values()
    return level(each(lambda *v: fmean(v), *parts), null=1.0)


def share_of_mean(t: Tables) -> Estimate:
    """The deviation of a score over the three sizes as a share of its mean, mean of both curves; published: a tenth."""
    parts = [spread("lite0", score, "sp", "patch_size", share=True)(t, [LITE]) for score in ("insertion", "deletion")]
    return level(each(lambda *v: fmean(v), *parts), null=0.1)


sp_s = Study(
    "sam-sp-s",
    "Sliding patch whose patch is a pixel larger or smaller, against 53, at 224 pixels.",
    {
        "lite0": Run(
            "sweep {data}/imagenet --limit 6 --preset sam-sp-s --metrics ssim:scale=none "
            "--metrics insertion:fill=mean,auc=norm --metrics deletion:fill=mean,auc=norm --no-calibrate",
            "first 6 ImageNet photos",
        )
    },
    [
        Claim(
            "ssim",
            "A patch one pixel larger or smaller changes the map (SSIM below 1)",
            "below 1",
            {LITE: neighbours},
            direction=-1,
            note="sliding patch draws nothing: only equal maps would speak against it",
        ),
        Claim(
            "scores",
            "Scores then vary by about a tenth of their mean (insertion and deletion; margin .05)",
            "about 10 %",
            {LITE: share_of_mean},
            within=0.05,
            note="the paper's scores are four; the margin is ours",
        ),
    ],
    "Six images: 10,000 passes an image.",
)

# --- scores while a knob is turned

TURNED = {"sg": "n", "sp": "patch_size", "lime": "seed", "mp": "seed"}  # sam-acc-45
HIDDEN = {"sg": "spread", "sp": "patch_size", "lime": "segments", "mp": "blur_radius"}  # sam-hidden
CURVES = "--metrics insertion:fill=mean,auc=norm --metrics deletion:fill=mean,auc=norm"


def spread(run: str, score: str, method: str, knob: str, share: bool = False) -> Pick:
    """A reader of the deviation of a score over a knob's values, image by image; `share`: of its mean."""

    def read(t: Tables, nets: Sequence[str]) -> Numbers:
        parts = t[run].settings(score, nets, knob, method=method).values()
        if not share:
            return each(lambda *v: pstdev(v), *parts)
        return each(lambda *v: pstdev(v) / fmean(v) if fmean(v) > 0 else None, *parts)

    return read


def mean_spread(share: bool) -> Pick:
    """A reader of the mean over methods and both curves of the deviation; `share`: each of its own mean."""

    def read(t: Tables, nets: Sequence[str]) -> Numbers:
        scores = [(m, score) for m in TURNED for score in ("insertion", "deletion")]
        parts = [spread("cifar", score, m, TURNED[m], share)(t, nets) for m, score in scores]
        return each(lambda *v: fmean(v), *parts)

    return read


def patch_less_others(t: Tables) -> Estimate:
    """Mean similarity to the reference of sliding patch, less the lowest of the three other methods, image by image."""
    means = []
    for method, knob in TURNED.items():
        parts = t["cifar"].settings("ssim", SEEDS, knob, method=method, role="reference").values()
        means.append(each(lambda *v: fmean(v), *parts))
    order = list(TURNED)
    patch, others = means[order.index("sp")], [m for name, m in zip(order, means, strict=True) if name != "sp"]
    return difference(patch, each(lambda *v: min(v), *others))


acc45 = Study(
    "sam-acc-45",
    "Scores of four methods while a knob of each is turned: how much a score varies within an image.",
    {"cifar": common("sweep", f"--preset sam-acc-45 --metrics ssim {CURVES} --no-calibrate", TWO)},
    [
        Claim(
            "less",
            "Scores of robust nets vary less with a knob (deviation; insertion and deletion, four methods)",
            "2.4 times less",
            regular_over_robust(mean_spread(share=False), third=False),
            effect=2.4,
            note="a ratio of averages over methods, curves and images; the paper's is an average of ratios, and has "
            "localisation and similarity beside the curves",
        ),
        Claim(
            "less, share",
            "The same, of deviations as shares of their means",
            "not measured",
            regular_over_robust(mean_spread(share=True), third=False),
            direction=1,
        ),
        Claim(
            "patch",
            "Sliding patch with far apart sizes is the least consistent of the four (SSIM, less the next lowest)",
            "least consistent",
            {"3 std and 3 linf seeds": patch_less_others},
            direction=-1,
        ),
        Claim(
            "wsl",
            "Localisation errors vary by .51 of their mean on regular nets, by .31 on robust ones",
            ".51 and .31",
            cannot="no boxes in CIFAR-10, no robust net at 224 pixels; on lite0 alone hours",
        ),
    ],
    "13,500 passes forward and 3,200 back an image, for each of eight nets.",
)


def within_over_means(method: str) -> Callable[[Tables], Estimate]:
    """Mean deviation of insertion within an image, over the deviation of its means over the same images."""

    def measure(t: Tables) -> Estimate:
        parts = t["knobs"].settings("insertion", [STD], HIDDEN[method], method=method).values()
        rows = [v for v in zip(*(part[STD].values() for part in parts), strict=True) if None not in v]
        means = pstdev([fmean(column) for column in zip(*rows, strict=True)])
        within = level(spread("knobs", "insertion", method, HIDDEN[method])(t, [STD]))
        if within.value is None or within.ci95 is None or means == 0:
            return Estimate("ratio", None, None, within.n, (1, 0), 1.0, reason="the means do not move")
        low, high = (end / means for end in within.ci95)
        return Estimate("ratio", within.value / means, (low, high), within.n, (1, 0), 1.0, within.value, means)

    return measure


def over_seed(method: str, run: str = "knobs", knob: str = "") -> Callable[[Tables], Estimate]:
    """Deviation of insertion over a knob's values over that of the seeds', both within an image."""

    def measure(t: Tables) -> Estimate:
        turned = spread(run, "insertion", method, knob or HIDDEN[method])(t, [STD])
        return ratio(turned, spread("seeds", "insertion", method, "seed")(t, [STD]))

    return measure


def seeds_alike(t: Tables) -> Estimate:
    """Deviation of insertion over LIME's seeds, over that of the masks' seeds."""
    return ratio(*(spread("seeds", "insertion", method, "seed")(t, [STD]) for method in ("lime", "mp")))


hidden = Study(
    "sam-hidden",
    "Do averages over images hide how much a score varies within one? And do other knobs matter more than the seed?",
    {
        "knobs": common("sweep", f"--preset sam-hidden {CURVES} --no-calibrate", (STD,)),
        "seeds": common("sweep", f"--preset sam-acc-45 {CURVES} --no-calibrate", (STD,)),
        "iterations": common("sweep", "--preset sam-marg-46-iter --no-calibrate", (STD,)),
    },
    [
        *(
            Claim(
                method,
                f"Insertion of {method} varies more with {knob} within an image than its mean over images does",
                "averages hide sensitivity; no numbers",
                {STD: within_over_means(method)},
                cannot="a mean of deviations is at least the deviation of the means, whatever the data",
            )
            for method, knob in HIDDEN.items()
        ),
        *(
            Claim(
                f"{method} over seed",
                f"Insertion of {method} varies more with {HIDDEN[method]} than with the seed",
                published,
                {STD: over_seed(method)},
                direction=1,
            )
            for method, published in (("lime", "130.5 times"), ("mp", "16.6 times"))
        ),
        Claim(
            "iterations over seed",
            "Insertion of mp varies more with the iterations than with the seed",
            "74 times",
            {STD: over_seed("mp", "iterations", "steps")},
            direction=1,
        ),
        Claim(
            "seeds",
            "The seed of LIME matters about as much as that of the masks (.5 to 1.5 times)",
            "about",
            {STD: seeds_alike},
            within=0.5,
            note="the margin is ours",
        ),
    ],
    "The published ratios of knob and seed (sam-marg-46) are of deviations of dataset means, of which a seed's falls "
    "with the number of images; here both are within an image.",
)

STUDIES = [sg_n, sg_std, mp_iter, mp_seed, mp_blur, mp_init, lime_seed, lime_n, lime_k, sp_l, sp_s, acc45, hidden]

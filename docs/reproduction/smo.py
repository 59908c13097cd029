"""SMO (An evaluation of quality and robustness of smoothed explanations, 2022)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from estimates import difference
from reading import Numbers, each
from study import CURE, L2, LINF, LITE, SEEDS, STD, Claim, Run, Study, Tables, cifar, common, twins

FOUR = {  # name: where
    "grad": {"method": "grad"},
    "sg": {"method": "sg"},
    "ug": {"method": "ug"},
    "grad+softplus": {"method": "grad+softplus"},
}
NETS = (STD, CURE, LINF, L2, *SEEDS)
PHOTOS = "{data}/imagenet"


def lite(options: str, count: int, verb: str = "score", where: str = PHOTOS) -> Run:
    """A run of lite0 on photographs."""
    return Run(f"{verb} {where} --limit {count} {options}", f"first {count} ImageNet photos")


def against_grad(quantity: str, name: str, **where: Any) -> dict[str, Any]:
    """Evidence: how much a smoothed map has more of something than the gradient."""
    return {
        LITE: lambda t: difference(
            t["lite0"](quantity, [LITE], **FOUR[name], **where), t["lite0"](quantity, [LITE], **FOUR["grad"], **where)
        )
    }


def less_standard(read: Any) -> dict[str, Any]:
    """Evidence: how much more a net has than standard training: CURE and adversarial training."""
    return {
        "cure, std": lambda t: difference(read(t, [CURE]), read(t, [STD])),
    }


GINI = {"grad": 0.56, "sg": 0.34, "ug": 0.35, "grad+softplus": 0.65}
gini = Study(
    "smo-gini",
    "Sparseness (Gini) of four gradient maps, absolute values taken inside the average.",
    {"lite0": lite("--preset smo-gini --no-calibrate", 100)},
    [
        *(
            Claim(
                name,
                f"The map of {name} is {'sparser' if value > GINI['grad'] else 'less sparse'} than the gradient",
                f"{value} and {GINI['grad']}",
                against_grad("gini", name, sign="abs_sample"),
                effect=round(value - GINI["grad"], 2),
            )
            for name, value in GINI.items()
            if name != "grad"
        ),
        *(
            Claim(
                f"{name}, signed",
                f"{name} is less sparse than the gradient when absolute values are taken last",
                "not measured",
                {
                    LITE: lambda t, name=name: difference(  # type: ignore[misc]
                        t["lite0"]("gini", [LITE], method=name, sign="signed"),
                        t["lite0"]("gini", [LITE], method="grad"),
                    )
                },
                direction=-1,
                note="where the absolute value is taken alone moves the index (science C-8)" if name == "sg" else "",
            )
            for name in ("sg", "ug")
        ),
    ],
    "lite0 stands for VGG-16.",
)


def gini_of(t: Tables, nets: Sequence[str]) -> Numbers:
    """Sparseness of the gradient."""
    return t["cifar"]("gini", nets, method="grad")


gini_cifar = Study(
    "smo-gini-cifar",
    "Sparseness (Gini) of gradients of standard, curvature-regularised and adversarially trained nets.",
    {
        "cifar": cifar(
            "score",
            "--preset smo-gini-cifar --only-correct --no-calibrate",
            300,
            (*NETS, "cifar10-resnet32", "cifar10-resnet32-adv-linf"),
        )
    },
    [
        Claim(
            "at",
            "Gradients of adversarially trained nets are sparser",
            ".54 and .71",
            twins(lambda t, a, b: difference(gini_of(t, b), gini_of(t, a))),
            effect=0.17,
        ),
        Claim(
            "cure",
            "Gradients under CURE are as sparse as under standard training (difference below .05)",
            ".54 and .54",
            less_standard(gini_of),
            within=0.05,
        ),
    ],
)

INFIDELITY = {"sg": 1.42, "ug": 1.42, "grad+softplus": 1.00}
NORMALISED = "--infidelity-normalize true"
infidelity = Study(
    "smo-infid",
    "Infidelity of four maps under removal of squares of 29 or 30 pixels, 500 of them drawn; normalised.",
    {"lite0": lite(f"--preset smo-infid --infidelity-n 500 {NORMALISED} --no-calibrate", 100)},
    [
        Claim(
            name,
            f"The map of {name} is more faithful than the gradient (infidelity)",
            f"{value} and 1.43, not in these units",
            against_grad("infidelity:normalize=true", name),
            direction=-1,
        )
        for name, value in INFIDELITY.items()
    ],
    "The published numbers grow with the square of the logits; here they are divided by the mean square of the change "
    "and lie between 0 and 1: the order carries over, the numbers do not.",
)


def infid(t: Tables, nets: Sequence[str]) -> Numbers:
    """Infidelity over the mean square of what removal does to the logit."""
    return t["cifar"]("infidelity:normalize=true", nets, method="grad")


infid_cifar = Study(
    "smo-infid-cifar",
    "Infidelity of the gradient under removal of squares of 1 to 15 pixels of 32 (1,000 drawn), normalised.",
    {"cifar": common("score", f"--preset smo-infid-cifar --infidelity-n 1000 {NORMALISED} --no-calibrate", NETS)},
    [
        Claim(
            "cure",
            "The gradient is more faithful under CURE than under standard training",
            ".59 and 5.69, not in these units",
            less_standard(infid),
            direction=-1,
        ),
        Claim(
            "at",
            "The gradient is more faithful under adversarial than under standard training",
            "1.56 and 5.69, not in these units",
            twins(lambda t, a, b: difference(infid(t, b), infid(t, a)), third=False),
            direction=-1,
        ),
    ],
    "The published numbers grow with the square of the logits, which robust training makes smaller; here they are "
    "divided by the mean square of the change and lie between 0 and 1.",
)


def cascade(t: Tables, nets: Sequence[str]) -> Numbers:
    """The cascade's score: rank correlation averaged over the stages."""
    return t["cifar"]("cascade", nets, method="grad")


cascade_cifar = Study(
    "smo-cascade-cifar",
    "Rank correlation of gradients while a ResNet's blocks are randomised from the output down.",
    {"cifar": common("score", "--preset smo-cascade-cifar --no-calibrate", NETS)},
    [
        Claim(
            "at",
            "Gradients of adversarially trained nets stay more correlated",
            "curves",
            twins(lambda t, a, b: difference(cascade(t, b), cascade(t, a)), third=False),
            direction=1,
        ),
        Claim("cure", "Gradients under CURE stay more correlated", "not claimed", less_standard(cascade), direction=1),
    ],
    "The mean of the curve. Absolute values, as published, so that noise alone correlates.",
)
cascade_lite = Study(
    "smo-cascade",
    "Rank correlation of maps while layers are randomised from the output down.",
    {"lite0": lite("--preset smo-cascade --no-calibrate", 100)},
    [
        Claim(
            name,
            f"Maps of {name} stay more correlated than the gradient's",
            "curves",
            against_grad("cascade", name),
            direction=1,
            note="noisy maps win this test by being noisy: `--cascade-corrected true` divides by what noise alone gives"
            if name == "sg"
            else "",
        )
        for name in ("sg", "ug", "grad+softplus")
    ],
    "lite0 stands for VGG-16.",
)

CLASS = {"grad": (0.60, 0.49), "sg": (0.54, 0.37), "ug": (0.57, 0.38), "grad+softplus": (0.62, 0.45)}


def on_object(t: Tables, name: str, which: str) -> Numbers:
    """Share of the 20 largest entries that lie on the object of its class, the top-1 class or the second object's, of
    images whose first object is top-1."""
    ranks = t["first"]("rank", [LITE], method="grad")
    return each(lambda v, rank: v if rank == 1 else None, t[which]("class_top20", [LITE], **FOUR[name]), ranks)


def two_objects(data: Path, made: Path) -> None:
    """The classes of the two objects of every image that has two: first.csv and second.csv, and the images."""
    known = json.loads((data / "masks/annotations.json").read_bytes())["images"]
    some = [image for image in known if image.get("two_class")]
    (made / "images").mkdir(exist_ok=True)
    rows: dict[str, list[str]] = {"first": [], "second": []}
    for image in some:
        name = Path(image["file_name"]).name
        (made / "images" / name).write_bytes((data / "masks" / image["file_name"]).read_bytes())
        ranked = sorted(image["two_class"], key=lambda c: c["rank"])
        for which, category in zip(rows, ranked, strict=False):
            rows[which].append(f"{name},{category['imagenet_index']}")
    for which, lines in rows.items():
        (made / f"{which}.csv").write_text("\n".join(["file,class", *lines]) + "\n", encoding="utf-8")


def objects(which: str) -> Run:
    """The maps of one of the two classes."""
    annotations = "--annotations {data}/masks/annotations.json"
    command = f"score {{made}}/images --labels {{made}}/{which}.csv --target true {annotations} --preset smo-class"
    return Run(f"{command} --no-calibrate", "22 COCO images with two objects of ImageNet classes")


classes = Study(
    "smo-class",
    "How many of the 20 largest entries of a map lie on the object of its class, in images with two objects.",
    {"first": objects("first"), "second": objects("second")},
    [
        Claim(
            name,
            f"{name} points better at the object of the top-1 class than at the second",
            "{} and {}".format(*CLASS[name]),
            {LITE: lambda t, name=name: difference(on_object(t, name, "first"), on_object(t, name, "second"))},  # type: ignore[misc]
            effect=round(CLASS[name][0] - CLASS[name][1], 2),
        )
        for name in CLASS
    ]
    + [
        Claim(
            f"{name}, second",
            f"{name} points less well at the second object than the gradient does",
            f"{CLASS[name][1]} and {CLASS['grad'][1]}",
            {LITE: lambda t, name=name: difference(on_object(t, name, "second"), on_object(t, "grad", "second"))},  # type: ignore[misc]
            effect=round(CLASS[name][1] - CLASS["grad"][1], 2),
        )
        for name in CLASS
        if name != "grad"
    ],
    "Images whose first object is top-1, as published; the class of the second is among the ten highest. The published "
    "deviation over images is about .36. There are no more such images in the data.",
    prepare=two_objects,
)


def reached(t: Tables, nets: Sequence[str], kind: str) -> Numbers:
    """Cosine distance of the attacked image's map from the target's, where the class was kept."""
    kept = t[kind]("prediction_kept", nets)
    return each(lambda v, k: v if k else None, t[kind]("target_distance", nets), kept)


def moved(t: Tables, nets: Sequence[str], kind: str) -> Numbers:
    """Cosine distance of the attacked image's map from the clean one's, where the class was kept."""
    kept = t[kind]("prediction_kept", nets)
    return each(lambda v, k: v if k else None, t[kind]("original_distance", nets), kept)


def attacked(kind: str, options: str, nets: Sequence[str]) -> Run:
    """An attack of 200 steps; the image that comes nearest while the class is kept."""
    command = f"--preset smo-attack-cifar-{kind} {options} --steps 200 --only-correct --format csv"
    return cifar("attack", command, 40, nets)


KINDS = ("delta", "stadv", "all")
attack_cifar = Study(
    "smo-attack-cifar",
    "The gradient's map turned into another image's by adding, moving and mapping colours, 200 steps.",
    {kind: attacked(kind, "", (STD, CURE, LINF, *SEEDS)) for kind in KINDS}
    | {f"softplus, {kind}": attacked(kind, "--method grad+softplus:beta=0.8", (STD,)) for kind in KINDS},
    [
        *(
            Claim(
                kind,
                f"Maps of adversarially trained nets stay further from the target ({kind}; cosine distance)",
                "a figure",
                twins(lambda t, a, b, kind=kind: difference(reached(t, b, kind), reached(t, a, kind)), third=False),  # type: ignore[misc]
                direction=1,
            )
            for kind in KINDS
        ),
        *(
            Claim(
                f"{kind}, moved",
                f"Maps of adversarially trained nets are moved less from the clean map ({kind}; cosine distance)",
                "not measured",
                twins(lambda t, a, b, kind=kind: difference(moved(t, b, kind), moved(t, a, kind)), third=False),  # type: ignore[misc]
                direction=-1,
            )
            for kind in KINDS
        ),
        *(
            Claim(
                f"{kind} beats delta",
                f"On beta-smoothing the combination ({kind}) comes nearer to the target map than delta",
                "a figure",
                {
                    f"{STD}, beta .8": lambda t, kind=kind: difference(  # type: ignore[misc]
                        reached(t, [STD], f"softplus, {kind}"), reached(t, [STD], "softplus, delta")
                    ),
                    f"{LINF}, gradient": lambda t, kind=kind: difference(  # type: ignore[misc]
                        reached(t, [LINF], kind), reached(t, [LINF], "delta")
                    ),
                },
                direction=-1,
            )
            for kind in KINDS[1:]
        ),
        Claim(
            "lpips",
            "On beta-smoothing combinations do so at lower LPIPS",
            "a figure",
            cannot="the weights of LPIPS are not to be had offline",
        ),
    ],
    "About an hour for 100 images. 200 steps instead of 1,000: at least this far. Images whose class was lost are left "
    "out. Measured on the ReLU network on the 8-bit image.",
)


def damage(t: Tables, net: str, name: str) -> Numbers:
    """The mean over the budgets of the attacked map's distance from the clean one, where the class was always kept."""
    distances = t["cifar"].settings("original_distance", [net], "attack_eps", **FOUR[name])
    kept = t["cifar"].settings("prediction_kept", [net], "attack_eps", **FOUR[name])
    held = [each(lambda v, k: v if k else None, distances[eps], kept[eps]) for eps in distances]
    return each(lambda *v: fmean(v), *held)


attack_eps = Study(
    "smo-attack-eps",
    "Damage to four explanations against the budget of an additive change (2, 4, 8, 16 of 255), 100 steps.",
    {"cifar": cifar("attack", "--preset smo-attack-eps --steps 100 --only-correct --format csv", 24, (STD,))},
    [
        Claim(
            name,
            f"Smoothed maps ({name}) resist additive changes: mean distance over the budgets, less the gradient's",
            "curves",
            {
                STD: lambda t, name=name: difference(damage(t, STD, name), damage(t, STD, "grad")),  # type: ignore[misc]
            },
            direction=-1,
        )
        for name in ("sg", "ug", "grad+softplus")
    ],
    "The 24 first images: about a minute an image, most of it SmoothGrad's fifty copies in a hundred steps.",
)

SOFTPLUS, SMOOTHED = "lite0+softplus:beta=0.8", "lite0+smoothed:n=50,sigma=0.25,seed=0"
posthoc = Study(
    "smo-posthoc",
    "Post-hoc twins at 224 pixels: lite0 as it is, with softplus in place of its ReLU6, and smoothed.",
    {
        "lite0": lite(
            "--method grad --model lite0 --model lite0+softplus:beta=0.8 --model lite0+smoothed "
            "--metrics max_sensitivity:n=20 --metrics gini --no-calibrate",
            10,
        )
    },
    [
        Claim(
            f"{twin}, {score}",
            f"The gradient of {twin} is {word} than that of lite0 ({score})",
            "not as a twin; as a method, in its table of Gini" if score == "gini" else "not measured",
            {
                f"lite0, {twin}": lambda t, twin=twin, score=score: difference(  # type: ignore[misc]
                    t["lite0"](score, [twin], method="grad"), t["lite0"](score, [LITE], method="grad")
                )
            },
            direction=1 if word == "sparser" else -1,
        )
        for twin, score, word in (
            (SOFTPLUS, "max_sensitivity", "less sensitive"),
            (SOFTPLUS, "gini", "sparser"),
            (SMOOTHED, "max_sensitivity", "less sensitive"),
            (SMOOTHED, "gini", "less sparse"),
        )
    ],
    "Ten photographs: every map of the smoothed twin has fifty copies at 224 pixels, and a sensitivity twenty maps.",
)

STUDIES = [
    gini, gini_cifar, infidelity, infid_cifar, cascade_lite, cascade_cifar, classes, attack_cifar, attack_eps, posthoc,
]  # fmt: skip

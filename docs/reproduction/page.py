"""docs/reproduction.md, from the studies and their kept numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from estimates import CANNOT, INSTEAD, Estimate, verdict
from study import Claim, Study

NOT_RUN = "not run yet"
ORDER = ("holds", "in direction", "does not hold", "inconclusive", CANNOT, NOT_RUN)
TALLY = {
    "holds": "hold with their numbers",
    "in direction": "hold in direction",
    "does not hold": "do not hold",
    "inconclusive": "inconclusive",
    CANNOT: "not testable here",
    NOT_RUN: "not run yet",
}
INTRODUCTION = """\
# The papers' claims, put to the test

*Written by `python docs/reproduction page` from the numbers in `docs/reproduction/results`; do not edit. They were made
by the commands that stand under every table (`python docs/reproduction run STUDY --data DIR --work DIR`).*

The papers behind attrsens are SAM (Bansal, Agarwal and Nguyen 2020), BND (Wang, Fredrikson and Datta 2022), SMO (An
evaluation of quality and robustness of smoothed explanations, 2022) and HSE (Yeh et al. 2019). None of their networks
can be had here. What they say of regular and robust ResNets on ImageNet is asked here
of small nets on CIFAR-10, and of one ImageNet classifier, lite0, where a claim needs no twin. A claim is more than its
number, and a number of another network is not expected to return.

**Verdicts**, fixed beforehand (of the 95 % interval of our effect):

- *holds*: the same sign, the interval excludes no effect and contains the published one;
- *in direction*: the same sign, and the interval excludes no effect;
- *does not hold*: the interval lies on the other side, or contains no effect and less than half of the published one;
- *inconclusive*: it contains no effect, and more of the published one than that;
- *cannot be tested here*: no interval, or something that is not to be had.

Claims of something being no larger, or as large, are judged against a margin that is named. **Whose nets**: three
training seeds of either regime (bootstrap over seeds and images, so that an effect must exceed what another seed does);
the shipped pair and a third party's pair stand beside, one net a regime, which says something about these nets only.
The first line of a claim decides. Images are CIFAR-10's test images as JPEG scans, top-1 class explained, unless a
command says otherwise; the third party's pair was trained on the original pixels, and loses about ten points of
accuracy on the scans.

**How many**: 100 images, or fewer where they would keep a core busy for about an hour or more, and the study says so.

**Which**: `{common}` in commands is a file with the first 100 images that all fifteen nets get right (SAM too takes
those that all its nets get right). `run` writes it to WORK/cifar10-common.npz; `docs/reproduction/common.txt` has their
places in cifar10-test.npz, where classes take turns (`python docs/reproduction images` finds them). The nets whose
seeds are compared helped to choose them. They are easier than most, and two thirds are vehicles (airplane 11,
automobile 16, bird 3, cat 1, deer 1, dog 4, frog 14, horse 10, ship 21, truck 19): of the first images that
`cifar10-std` gets right, and of these, the mean probability of the class is .94 and .99, of `cifar10-linf` .61 and .76.
Effects are those of easy images. `sam-acc`, `bnd-align`, `bnd-bsg`, `smo-gini-cifar`, the attacks of SMO, `hse-cifar`,
`hse-radius` and the studies of MNIST and of lite0 take the first images of their data; where nets are compared on such,
images that all of them get right count.

Passes (F forward, B backward) are those of every map and score by itself; where several share some, fewer were made.
"""


def page(studies: Iterable[Study], results: Mapping[str, dict[str, Any]], figures: Mapping[str, str]) -> str:
    """The whole page."""
    studies = list(studies)
    body, counts = [], Counter[str]()
    listed: dict[str, list[str]] = {name: [] for name in ORDER}
    for study in studies:
        lines, words = _study(study, results.get(study.id))
        body += lines
        for claim, word in zip(study.claims, words, strict=True):
            counts[word] += 1
            listed[word].append(f"{claim.text} (`{study.id}`)")
    lines = [INTRODUCTION, "## In short", ""]
    lines += ["| verdict | claims |", "|---|---:|"]
    lines += [f"| {name} | {counts[name]} |" for name in ORDER if counts[name]]
    lines.append("")
    for name in ORDER:
        if listed[name]:
            lines += [f"**{name.capitalize()}**", "", *(f"- {text}" for text in listed[name]), ""]
    last = ["## Presets without a claim of their own", "", "| preset | why |", "|---|---|"]
    last += [f"| `{name}` | {why} |" for name, why in figures.items()]
    return "\n".join(lines + body + last).rstrip() + "\n"


def _study(study: Study, result: dict[str, Any] | None) -> tuple[list[str], list[str]]:
    lines = [f"## `{study.id}`", "", study.what, ""]
    lines += ["| claim | published | whose nets | ours | images | verdict |", "|---|---|---|---:|---:|---|"]
    words = []
    for claim in study.claims:
        rows = _rows(claim, result)
        words.append(rows[0][-1])
        lines += [f"| {' | '.join(row)} |" for row in rows]
    lines.append("")
    notes = [(c, c.note or (c.cannot if c.evidence else "")) for c in study.claims]
    for text in [study.note, *(f"{c.text}: {note}" for c, note in notes if note)]:
        lines += [text, ""] if text else []
    for name, run in (result or {"runs": {}})["runs"].items():
        made = f"{run['passes']['forward']:,} F and {run['passes']['backward']:,} B"
        made += f", {run['seconds']:,} s" if run["seconds"] is not None else ""
        lines += [f"`{name}`, {run['images']} ({made}):", "", "```sh", f"attrsens {run['command']}", "```", ""]
    return lines, words


def _rows(claim: Claim, result: dict[str, Any] | None) -> list[list[str]]:
    found = (result or {"claims": {}})["claims"].get(claim.key)
    if claim.cannot and not found:
        return [[claim.text, claim.published, "", claim.cannot, "", CANNOT]]
    if not found:
        return [[claim.text, claim.published, "", "", "", NOT_RUN]]
    rows = []
    for whose, data in found.items():
        estimate = Estimate.of(data)
        word = CANNOT if claim.cannot else _word(claim, estimate)
        first = not rows
        head = [claim.text, claim.published] if first else ["", ""]
        rows.append([*head, whose, told(estimate), str(estimate.n), word])
    return rows


def _word(claim: Claim, estimate: Estimate) -> str:
    return verdict(estimate, claim.effect, claim.direction, claim.margin, claim.within)


def told(e: Estimate) -> str:
    """The number with its interval."""
    if e.value is None:
        return e.reason or "no value"
    ends = f" [{_short(e.ci95[0])}, {_short(e.ci95[1])}]" if e.ci95 else ""
    sides = f" ({_short(e.a)} and {_short(e.b)})" if e.a is not None and e.b is not None else ""
    times = " times" if e.kind == "ratio" else ""
    sign = "+" if e.kind in ("difference", INSTEAD) and e.value > 0 else ""
    missing = f"; {e.reason}" if e.reason and not e.ci95 else ""
    missing += "; the ratio has no bounded interval" if e.kind == INSTEAD else ""
    return f"{sign}{_short(e.value)}{times}{ends}{sides}{missing}"


def _short(value: float) -> str:
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.0f}" if "e+" in text else text


SHORT = (
    ("sam-noise", "spearman"),
    ("sam-outline", "edges"),
    ("sam-gbp-cross", "drift"),
    ("sam-sg-n", "ssim"),
    ("sam-lime-seed", "ssim"),
    ("sam-sp-l", "ssim"),
    ("sam-acc-45", "less"),
    ("bnd-align", "grad to bsm, raw"),
    ("bnd-align", "grad to bsm, cosine"),
    ("bnd-search", "robust"),
    ("bnd-loc", "big-grad-eg"),
    ("smo-gini", "sg"),
    ("smo-gini", "grad+softplus"),
    ("smo-gini-cifar", "at"),
    ("smo-infid-cifar", "at"),
    ("smo-cascade-cifar", "at"),
    ("smo-attack-cifar", "delta"),
    ("hse-cifar", "smooth, grad, max_sensitivity"),
    ("hse-cifar", "robust, grad, faithfulness"),
    ("hse-levels", "grad, max_sensitivity"),
)


def short(studies: Mapping[str, Study], results: Mapping[str, dict[str, Any]]) -> str:
    """The claims that matter most, a row each, for the README: those that have been run."""
    lines = ["| paper | claim | published | ours [95 %] | whose nets | verdict |", "|---|---|---|---:|---|---|"]
    for study, key in SHORT:
        (claim,) = (c for c in studies[study].claims if c.key == key)
        text, published, whose, ours, _, word = _rows(claim, results.get(study))[0]
        if word != NOT_RUN:
            paper = study.partition("-")[0].upper()
            lines.append(f"| {' | '.join([paper, text, published, ours, whose, word])} |")
    return "\n".join(lines)


def tally(studies: Iterable[Study], results: Mapping[str, dict[str, Any]]) -> str:
    """How many claims came out how, in a sentence."""
    words = Counter(_rows(claim, results.get(study.id))[0][-1] for study in studies for claim in study.claims)
    parts = [f"{words[name]} {told}" for name, told in TALLY.items() if words[name]]
    return f"{words.total()} claims: {', '.join(parts)}. Those that matter most:"

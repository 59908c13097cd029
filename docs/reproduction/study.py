"""What a study is: the commands that make its reports, and the claims that are computed from them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from estimates import Estimate
from reading import Table

STD, LINF, L2, CURE = "cifar10-std", "cifar10-linf", "cifar10-l2", "cifar10-cure"
STDS, LINFS = ([f"small-{kind}-{seed}" for seed in range(3)] for kind in ("std", "linf"))
LADDER = ["small-std-0", "small-l2-0.25", "small-l2-0.5", "small-l2-1"]
PAIR = ("cifar10-resnet32", "cifar10-resnet32-adv-linf")
TWINS = [(STDS, LINFS), ([STD], [LINF]), ([PAIR[0]], [PAIR[1]])]
CIFAR, COMMON, LITE = "{data}/cifar10-test.npz", "{common}", "lite0"

Tables = Mapping[str, Table]
Found = Estimate | None


@dataclass(frozen=True)
class Run:
    """One command.

    Attributes:
        command: an attrsens command line without its name, images and output; {data}, {nets}, {made} are folders,
            {common} is the file of common images.
        images: what it is given, in words.
    """

    command: str
    images: str

    def words(self, **folders: str) -> list[str]:
        """The command line, ready to run."""
        return [word.format(**folders) for word in shlex.split(self.command)]


@dataclass(frozen=True)
class Claim:
    """Something a paper says.

    Attributes:
        text: the claim, in our words; `published`: its numbers.
        evidence: whose nets -> what the reports say; the first decides, the others stand beside it.
        effect, direction, margin, within: as `estimates.verdict` takes them.
        cannot: why it cannot be tested here; numbers that stand beside it get no verdict.
        note: what differs from the paper.
    """

    key: str
    text: str
    published: str
    evidence: Mapping[str, Callable[[Tables], Found]] = field(default_factory=dict)
    effect: float | None = None
    direction: int | None = None
    margin: float | None = None
    within: float | None = None
    cannot: str = ""
    note: str = ""


@dataclass(frozen=True)
class Study:
    """One row of the list of experiments.

    Attributes:
        prepare: writes what a command needs, from the folder of the data into {made}.
        numbers: further ones that are kept, for a figure.
    """

    id: str
    what: str
    runs: Mapping[str, Run]
    claims: Sequence[Claim]
    note: str = ""
    prepare: Callable[[Path, Path], None] | None = None
    numbers: Mapping[str, Callable[[Tables], Estimate]] = field(default_factory=dict)


def models(*nets: str) -> str:
    """--model options; nets of the data folder and of the nets folder by file."""
    return " ".join(f"--model {located(net)}" for net in nets)


def located(net: str) -> str:
    """What --model takes."""
    if net.startswith("small-"):
        return f"{{nets}}/{net}.safetensors"
    return f"{{data}}/models/{net}.safetensors" if net in PAIR or net.startswith("mnist-") else net


SEEDS = (*STDS, *LINFS)
ALL = (STD, LINF, L2, CURE, *SEEDS, *PAIR)


def cifar(verb: str, options: str, count: int, nets: Sequence[str] = ALL) -> Run:
    """A run on the first images of the CIFAR-10 test set (JPEG scans; any prefix is balanced)."""
    command = f"{verb} {CIFAR} --limit {count} {models(*nets)} {options}"
    some = f"first {count} CIFAR-10 test images"
    return Run(command, f"of the {some} those that the nets get right" if "--only-correct" in options else some)


def common(verb: str, options: str, nets: Sequence[str] = ALL, count: int = 100) -> Run:
    """A run on the first of the images that all nets get right (common.txt)."""
    command = f"{verb} {COMMON} --limit {count} {models(*nets)} {options}"
    return Run(command, f"the first {count} CIFAR-10 test images that all nets get right")


def twins(
    measure: Callable[[Tables, Sequence[str], Sequence[str]], Estimate], third: bool = True
) -> dict[str, Callable[[Tables], Found]]:
    """A claim about regular and robust nets, from three seeds of each, the shipped pair, and a third party's pair.

    Args:
        measure: of (tables, regular nets, robust nets).
        third: the third party's pair is in the run.
    """
    titles = ("3 std and 3 linf seeds", "cifar10-std, cifar10-linf", "ResNet-32 pair of a third party")
    out: dict[str, Callable[[Tables], Found]] = {}
    for title, (regular, robust) in list(zip(titles, TWINS, strict=True))[: 3 if third else 2]:
        out[title] = lambda t, a=regular, b=robust: measure(t, a, b)  # type: ignore[misc]
    return out

"""`attrsens train`."""

from __future__ import annotations

import gc
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attrsens.cli import console, options
from attrsens.engine.train import Request, Stopped, Training, carry_out, request
from attrsens.training import COMMON, RECIPES

if TYPE_CHECKING:
    from attrsens.training.run import Progress

RECIPE, DATA, MEASURE, NETWORK = "Recipe parameters", "Data", "Accuracy", "Network"
COMMON_NAMES = {hyper.name for hyper in COMMON}


def _train(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="A folder with one folder a class, a FILE.npz, or cifar10.")
    ],
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            metavar="NAME[:PARAM=VALUE,...]",
            help="; ".join(f"{name}: {RECIPES[name].summary}" for name in RECIPES) + ".",
            autocompletion=options.names(lambda: RECIPES),
        ),
    ] = "std",
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Continue this network: a name or file, as for --model.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            "--arch",
            metavar="NAME",
            help="Architecture ('attrsens list models'); of the file with --from.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(
            "--width",
            metavar="N",
            help="Channels of the first stage of the default architecture (32).",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            metavar="PX",
            min=8,
            max=1024,
            rich_help_panel=DATA,
            help="Bring every picture to this side: the short side, then the centre.",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes", metavar="FILE|cifar10|mnist", rich_help_panel=DATA, help="Class names of an npz that has none."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            metavar="N",
            min=1,
            help="Use only N images: the first, of a folder from its classes in turn.",
            rich_help_panel=DATA,
        ),
    ] = None,
    held_out: Annotated[
        int | None,
        typer.Option(
            "--held-out",
            metavar="N",
            min=1,
            rich_help_panel=DATA,
            help="Images kept from training for the curves and the guard (default: 2 %, 1000 at most).",
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Never download data or weights.", rich_help_panel=DATA)
    ] = False,
    val: Annotated[
        str | None,
        typer.Option(
            "--val",
            metavar="DATASET",
            rich_help_panel=MEASURE,
            help="What the accuracies of the model card are measured on (default: the held-out images).",
        ),
    ] = None,
    val_limit: Annotated[
        int | None,
        typer.Option(
            "--val-limit", metavar="N", min=1, help="Only N of its images, as --limit.", rich_help_panel=MEASURE
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            metavar="NORM:EPS",
            rich_help_panel=MEASURE,
            help="Adversary of PGD-20 and AutoPGD, such as linf:8/255; repeatable; the first also watches the "
            "training. Default: the recipe's own, else linf:2/255.",
        ),
    ] = None,
    attacked: Annotated[
        int, typer.Option("--attacked", metavar="N", min=1, help="Images they see.", rich_help_panel=MEASURE)
    ] = 1000,
    device: options.Device = "auto",
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            metavar="auto|fp32|bf16",
            rich_help_panel=options.RUN,
            help="Of training; auto: bf16 where the hardware multiplies it. Accuracies are measured in fp32.",
        ),
    ] = "auto",
    out: options.Out = Path("attrsens-out"),
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            rich_help_panel=options.OUTPUT,
            help="Of the files in --out (default: DATASET-RECIPE).",
        ),
    ] = None,
    json: options.Json = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Begin anew, over whatever has this name, checkpoints too.", rich_help_panel=options.OUTPUT
        ),
    ] = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    no_progress: options.NoProgress = False,
    debug: options.Debug = False,
) -> None:
    """The options that no recipe brings."""


def _with_recipes(command: Callable[..., int]) -> Callable[..., int]:
    """Give the command its options and a flag for every parameter of a recipe; it is called as command(flags, values).

    Values of flags stay text here: the specs parse them.
    """
    own = inspect.signature(_train, eval_str=True).parameters
    flags = {name: _flag(name) for name in RECIPES.parameters()}

    def wrapper(**given: Any) -> int:
        asked = {name: given[name] for name in flags if given[name] is not None}
        return command(asked, {name: given[name] for name in own})

    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, keyword, default=None, annotation=note) for name, note in flags.items()]
    signature = inspect.Signature([p.replace(kind=keyword) for p in own.values()] + added)
    wrapper.__signature__ = signature  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    wrapper.__doc__, wrapper.__name__ = command.__doc__, command.__name__
    return wrapper


def _flag(name: str) -> Any:
    owners = RECIPES.parameters()[name]
    return options.flag(name, owners, everywhere=name in COMMON_NAMES, panel=RECIPE)


@_with_recipes
def train(flags: dict[str, str], values: dict[str, Any]) -> int:
    """Train a small reference network: standard, adversarial, or fine-tuned for low curvature.

    Killed at any moment, the same command goes on from the last checkpoint and ends in the same weights; with --force
    it begins anew.

    attrsens train cifar10 --recipe fast --norm linf --eps 8/255 --epochs 30 --out nets --name robust
    """
    quiet, json = values["quiet"], values["json"]
    console.set_up_logging(quiet, values["verbose"])
    console.check_file(json)
    shown = ("quiet", "verbose", "no_progress", "debug", "json", "dataset", "recipe", "budget")
    rest = {name: value for name, value in values.items() if name not in shown}
    asked = request(values["dataset"], values["recipe"], flags, budgets=values["budget"] or [], **rest)
    gc.enable()
    code = 0
    try:
        silent = quiet or values["no_progress"]
        with _progress(silent, f"train {asked.name}") as (tick, say), console.only_data():
            found = carry_out(asked, tick, say)
    except Stopped as stopped:
        found, code = stopped.training, 130
    if json:
        console.write_json(asdict(found), json)
    if code:
        same = "the same command without --force" if asked.force else "the same command"
        console.error(f"interrupted; {same} goes on from {asked.path('.checkpoint')}, if there is one yet")
        return code
    if json != "-" and not quiet:
        _show(found, asked)
    return 0


def _show(found: Training, asked: Request) -> None:
    """One line an accuracy: file, adversary, budget, accuracy, images."""
    path = str(asked.path(".safetensors"))
    for row in found.accuracy:
        budget = f"{row['norm']}:{row['eps']:.4g}" if row["norm"] else ""
        console.row(path, row["kind"], budget, f"{row['value']:.4f}", str(row["n"]))
    for fall in found.fallbacks:
        console.note(
            f"catastrophic overfitting in epoch {fall['epoch']}: accuracy under PGD fell from {fall['best']:.1%} to "
            f"{fall['accuracy']:.1%}; went back and on with {fall['recipe']}, {fall['steps']} steps"
        )
    told = "trained" if found.fresh else "was trained already, nothing was done; --force trains it anew;"
    parameters = f"{found.model['parameters']:,} parameters"
    console.note(f"{asked.name} {told} ({parameters}, {found.provenance['seconds']:.0f} s); use it with --model {path}")


@contextmanager
def _progress(silent: bool, what: str) -> Iterator[tuple[Callable[[Progress], None], Callable[[str], None]]]:
    """A bar on a terminal; elsewhere a plain line every 30 seconds; nothing when silent."""
    steps = console.steps(what, silent)
    if silent:
        yield (lambda progress: None), steps
        return
    if not console.on_terminal():
        last = time.monotonic()

        def line(progress: Progress) -> None:
            nonlocal last
            if time.monotonic() - last >= console.EVERY:
                last = time.monotonic()
                console.note(f"{what}: {_told(progress)}, step {progress.step} of {progress.steps}")

        yield line, steps
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def step(progress: Progress) -> None:
            done = (progress.epoch - 1) * progress.steps + progress.step
            text = f"{what}: {_told(progress)}"
            bar.update(task, completed=done, total=progress.epochs * progress.steps, description=text)

        yield step, lambda text: bar.update(task, description=f"{what}: {text}")


def _told(p: Progress) -> str:
    text = f"epoch {p.epoch} of {p.epochs}, loss {p.loss:.3f}"
    if p.clean is not None and p.adversarial is not None:
        text += f", held-out accuracy {p.clean:.1%}, adversarial {p.adversarial:.1%}"
    return text

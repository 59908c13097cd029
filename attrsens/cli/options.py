"""Options that commands share, and the flags that come from the methods' signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from attrsens.cli.preset import Chosen, Flag, PresetOption
from attrsens.engine.store import DEFAULT_LIMIT
from attrsens.params import written
from attrsens.samples import samples
from attrsens.spec import METHODS, SCORES, SIMILARITIES, Hyper, Registry

MODEL, RUN, CACHE, OUTPUT = "Model", "Running", "Cache", "Output"
METHOD, METRIC = "Method parameters", "Metric parameters"


def names(pool: Callable[[], Any]) -> Callable[[str], list[str]]:
    """Completion from a pool of names."""
    return lambda incomplete: [name for name in pool() if name.startswith(incomplete)]


def _models() -> list[str]:
    from attrsens.models.zoo import known_models

    return list(known_models())


def _images(incomplete: str) -> list[str]:
    import glob

    found = [f"sample:{name}" for name in samples() if f"sample:{name}".startswith(incomplete)]
    paths = glob.glob(incomplete + "*")  # noqa: PTH207 (a prefix, not a folder)
    return found + [p + "/" if Path(p).is_dir() else p for p in paths]


Images = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[IMAGE]...",
        help="Files, folders, patterns, sample:NAME or sample:*, FILE.npz; without any, the first sample.",
        autocompletion=_images,
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME[:PARAM=VALUE,...]",
        help="Method expression; repeatable. Without it, the method that has the parameters given, else grad.",
        autocompletion=names(lambda: METHODS),
    ),
]
Model = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME[@WEIGHTS]|FILE[+WRAPPER]",
        help="Classifier; repeatable. 'attrsens list models' names them. Default: lite0.",
        autocompletion=names(_models),
        rich_help_panel=MODEL,
    ),
]
Target = Annotated[
    list[str] | None,
    typer.Option("--target", metavar="top1|true|INDEX|LABEL", help="Class to explain; repeatable. Default: top1."),
]
Labels = Annotated[
    str | None,
    typer.Option("--labels", metavar="FILE.csv|folders", help="Ground truth: csv of file,class; or folders."),
]
OnlyCorrect = Annotated[bool, typer.Option("--only-correct", help="Leave out images whose top-1 is not their label.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Use only the first N images.")]
Frame = Annotated[
    int | None,
    typer.Option("--frame", min=0, metavar="N", help="Frame of animated or multi-page files, from 0."),
]
Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="NAME|py:MODULE:FUNCTION",
        help="Architecture of a weights file; without it, the one that fits. py: runs your own code.",
        rich_help_panel=MODEL,
    ),
]
PreprocessOption = Annotated[
    str | None,
    typer.Option(
        "--preprocess",
        metavar="SETTINGS",
        help="resize=256,crop=224,interp=bicubic,squash=false,mean=0.5,0.5,0.5,std=...; what is named replaces.",
        rich_help_panel=MODEL,
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="FILE|imagenet|cifar10|mnist",
        help="Class names, one a line.",
        rich_help_panel=MODEL,
    ),
]
Sha256 = Annotated[
    str | None,
    typer.Option("--sha256", metavar="HEX", help="What the weights file must hash to.", rich_help_panel=MODEL),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never download weights.", rich_help_panel=MODEL)]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda[:i]", help="Device.", rich_help_panel=RUN)]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="fp32|bf16",
        help="bf16 acts on passes without a gradient only.",
        rich_help_panel=RUN,
    ),
]
NoFold = Annotated[
    bool,
    typer.Option(
        "--no-fold",
        help="Reference numerics: BatchNorm not folded, plain memory layout.",
        rich_help_panel=RUN,
    ),
]
Batch = Annotated[str, typer.Option("--batch", metavar="auto|N", help="Images a pass.", rich_help_panel=RUN)]
PlanOnly = Annotated[
    bool,
    typer.Option(
        "--plan", help="Print cells, passes, memory and expected time; run nothing else.", rich_help_panel=RUN
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        metavar="DIR",
        help="Default: $XDG_CACHE_HOME/attrsens or ~/.cache/attrsens.",
        rich_help_panel=CACHE,
    ),
]
CacheLimit = Annotated[
    float,
    typer.Option("--cache-limit", min=0, metavar="GB", help="Oldest results go first.", rich_help_panel=CACHE),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither read nor keep results.", rich_help_panel=CACHE)]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.", rich_help_panel=OUTPUT)]
Json = Annotated[
    str | None,
    typer.Option("--json", metavar="PATH|-", help="The report also here; - is stdout.", rich_help_panel=OUTPUT),
]
JsonList = Annotated[str | None, typer.Option("--json", metavar="PATH|-", help="As JSON; - is stdout.")]
Formats = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="png,npy,csv,junit,md,github",
        help="What to write: maps as png or npy, tables as csv, junit.xml, report.md; github: annotations on stderr. "
        "With md or github the report is appended to $GITHUB_STEP_SUMMARY.",
        rich_help_panel=OUTPUT,
    ),
]
FailIf = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-if",
        metavar="QUANTITY<NUMBER",
        help="Exit 1 if this is true of an aggregate, or if it has no value: 'ssim<0.6', 'gini.low<=0.5'; repeatable.",
        rich_help_panel=OUTPUT,
    ),
]
Overlay = Annotated[bool, typer.Option("--overlay", help="Draw the map over the grey picture.", rich_help_panel=OUTPUT)]
Force = Annotated[
    bool, typer.Option("--force", help="Replace files that attrsens did not write.", rich_help_panel=OUTPUT)
]
Quiet = Annotated[
    bool,
    typer.Option("-q", "--quiet", help="No progress, no summary; errors remain.", rich_help_panel=OUTPUT),
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more.", rich_help_panel=OUTPUT)]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="No progress.", rich_help_panel=OUTPUT)]
Debug = Annotated[bool, typer.Option("--debug", help="Tracebacks instead of one line.", rich_help_panel=OUTPUT)]

AnnotationsOption = Annotated[
    Path | None,
    typer.Option(
        "--annotations",
        metavar="FILE|DIR",
        help="Where the objects are: COCO JSON, PASCAL VOC XML (a file or a folder), or a folder of mask PNGs.",
    ),
]


def _shared(
    images: Images = None,
    method: Methods = None,
    target: Target = None,
    labels: Labels = None,
    only_correct: OnlyCorrect = False,
    limit: Limit = None,
    frame: Frame = None,
    model: Model = None,
    arch: Arch = None,
    preprocess: PreprocessOption = None,
    classes: Classes = None,
    sha256: Sha256 = None,
    offline: Offline = False,
    device: Device = "auto",
    precision: Precision = "fp32",
    no_fold: NoFold = False,
    batch: Batch = "auto",
    plan: PlanOnly = False,
    preset: PresetOption = None,
    cache_dir: CacheDir = None,
    cache_limit: CacheLimit = DEFAULT_LIMIT / 1e9,
    no_cache: NoCache = False,
    out: Out = Path("attrsens-out"),
    json: Json = None,
    format: Formats = "png",
    fail_if: FailIf = None,
    overlay: Overlay = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """The options of every command that explains images."""


Flags = dict[str, str]


def runs(
    metrics: bool = False, registry: Registry = METHODS, panel: str = METHOD
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command the shared options, a flag for every parameter of the registry's entries and, if asked for, for
    every metric's.

    The command is called as command(values, flags, metric_flags, **its own options). Values of flags stay text here:
    the specs parse them, so that flags, expressions and files share one check.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        shared = inspect.signature(_shared, eval_str=True).parameters
        given = ("values", "flags", "metric_flags")
        own = {n: p for n, p in inspect.signature(command, eval_str=True).parameters.items() if n not in given}
        known = registry.parameters().items()
        methods = {n: flag(n, owners, _alike(owners, len(registry)), panel) for n, owners in known if n not in own}
        judged = _metric_flags() if metrics else {}
        own_flags = methods if registry is METHODS else {}  # an attack's go with no method
        every = [Flag(n, None, n) for n in own_flags] + [Flag(w, metric, n) for w, (metric, n, _) in judged.items()]

        def wrapper(**given: Any) -> int:
            chosen: Chosen | None = given["preset"]
            if chosen:
                given = chosen.settle(given, every)
            values = {name: given[name] for name in shared}
            flags = {name: given[name] for name in methods if given[name] is not None}
            metric_flags: dict[str, Flags] = {}
            for word, (metric, name, _) in judged.items():
                if given[word] is not None:
                    metric_flags.setdefault(metric, {})[name] = given[word]
            return command(values, flags, metric_flags, **{name: given[name] for name in own})

        keyword = inspect.Parameter.KEYWORD_ONLY
        first, *rest = shared.values()
        order = [first, *own.values(), *rest]
        notes = methods | {word: note for word, (_, _, note) in judged.items()}
        added = [inspect.Parameter(name, keyword, default=None, annotation=note) for name, note in notes.items()]
        signature = inspect.Signature([p.replace(kind=keyword) for p in order] + added)
        wrapper.__signature__ = signature  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        wrapper.__doc__, wrapper.__name__ = command.__doc__, command.__name__
        return wrapper

    return decorate


def _metric_flags() -> dict[str, tuple[str, str, Any]]:
    """Option names with metric, parameter and option: `--deletion-fill`. The parameters that every score has are not
    shown in the help."""
    out: dict[str, tuple[str, str, Any]] = {}
    for registry in (SCORES, SIMILARITIES):
        common = {h.name for h in registry.common}
        for metric in registry:
            for hyper in registry[metric].hypers:
                default = hyper.default if hyper.default != "" else "none"
                option = typer.Option(
                    f"--{metric}-{hyper.name}".replace("_", "-"),
                    metavar=_metavar(hyper),
                    help=f"{hyper.param.help} (default {default})",
                    rich_help_panel=METRIC,
                    hidden=hyper.name in common,
                )
                out[f"{metric}__{hyper.name}"] = metric, hyper.name, Annotated[str | None, option]
    return out


def _metavar(hyper: Hyper) -> str:
    words = {int: "N", float: "X", bool: "true|false", Path: "FILE", str: "WORD"}
    return "|".join(hyper.param.choices) if hyper.param.choices else words[hyper.type]


def _alike(owners: dict[str, Hyper], entries: int) -> bool:
    """Whether all entries of a registry have a parameter, and with one meaning."""
    return len(owners) == entries and len({hyper.param.help for hyper in owners.values()}) == 1


def flag(name: str, owners: dict[str, Hyper], everywhere: bool, panel: str = METHOD) -> Any:
    """The option of a parameter, from the entries of a registry that have it.

    Args:
        everywhere: all of them have it, and with one meaning.
    """
    some = next(iter(owners.values()))
    metavar = _metavar(some)
    meanings: dict[tuple[str, Any], list[str]] = {}
    for method, hyper in owners.items():
        meanings.setdefault((hyper.param.help, hyper.default), []).append(method)
    if everywhere:  # one meaning, perhaps several defaults
        defaults: dict[Any, list[str]] = {}
        for method, hyper in owners.items():
            defaults.setdefault(hyper.default, []).append(method)
        most = max(defaults, key=lambda d: len(defaults[d]))
        rest = [f"{', '.join(methods)}: {value}" for value, methods in defaults.items() if value != most]
        text = f"{some.param.help} (default {most}{'; ' if rest else ''}{'; '.join(rest)})"
    else:
        text = "; ".join(
            f"{', '.join(m)}: {help} (default {written(default) if default != '' else 'none'})"
            for (help, default), m in meanings.items()
        )
    option = typer.Option(f"--{name.replace('_', '-')}", metavar=metavar, help=text, rich_help_panel=panel)
    return Annotated[str | None, option]

"""Options that commands share, and the flags that come from the methods' signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from attrsens.samples import samples
from attrsens.spec import METHODS, Hyper

MODEL, RUN, CACHE, OUTPUT, METHOD = "Model", "Running", "Cache", "Output", "Method parameters"


def _names(pool: Callable[[], Any]) -> Callable[[str], list[str]]:
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
        help="Files, folders, patterns, sample:NAME, FILE.npz; without any, the first sample.",
        autocompletion=_images,
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME[:PARAM=VALUE,...]",
        help="Method expression; repeatable. Without it, the method that has the parameters given, else grad.",
        autocompletion=_names(lambda: METHODS),
    ),
]
Model = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME[@WEIGHTS]|FILE[+WRAPPER]",
        help="Classifier; repeatable. 'attrsens list models' names them. Default: lite0.",
        autocompletion=_names(_models),
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
Formats = Annotated[str, typer.Option("--format", metavar="png,npy,csv", help="What to write.", rich_help_panel=OUTPUT)]
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


def with_method_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one flag for every method parameter; those that are set arrive as the keyword `flags`.

    The values stay text here: the specs parse them, so that flags, expressions and files share one check.
    """

    def wrapper(**values: Any) -> Any:
        flags = {name: values.pop(name) for name in parameters}
        return command(**values, flags={k: v for k, v in flags.items() if v is not None})

    parameters = METHODS.parameters()
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "flags"]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_flag(name, owners))
        for name, owners in parameters.items()
    ]
    signature = inspect.Signature([p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + added)
    wrapper.__signature__ = signature  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    wrapper.__doc__, wrapper.__name__ = command.__doc__, command.__name__
    return wrapper


def _flag(name: str, owners: dict[str, Hyper]) -> Any:
    some = next(iter(owners.values()))
    words = {int: "N", float: "X", bool: "true|false", Path: "FILE", str: "WORD"}
    metavar = "|".join(some.param.choices) if some.param.choices else words[some.type]
    meanings: dict[tuple[str, Any], list[str]] = {}
    for method, hyper in owners.items():
        meanings.setdefault((hyper.param.help, hyper.default), []).append(method)
    everywhere = len(owners) == len(METHODS)
    if everywhere:  # one meaning, perhaps several defaults
        defaults: dict[Any, list[str]] = {}
        for method, hyper in owners.items():
            defaults.setdefault(hyper.default, []).append(method)
        most = max(defaults, key=lambda d: len(defaults[d]))
        rest = [f"{', '.join(methods)}: {value}" for value, methods in defaults.items() if value != most]
        text = f"{some.param.help} (default {most}{'; ' if rest else ''}{'; '.join(rest)})"
    else:
        text = "; ".join(
            f"{', '.join(m)}: {help} (default {default if default != '' else 'none'})"
            for (help, default), m in meanings.items()
        )
    option = typer.Option(f"--{name.replace('_', '-')}", metavar=metavar, help=text, rich_help_panel=METHOD)
    return Annotated[str | None, option]

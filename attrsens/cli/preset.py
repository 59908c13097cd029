"""`--preset`: where the command line is silent, the values of a preset stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from attrsens.engine.presets import Option, Preset, Scalar, as_text, load, shipped, without
from attrsens.errors import AttrsensError, unknown
from attrsens.spec import METHODS


@dataclass(frozen=True)
class Flag:
    """An option that is a parameter of methods, or of one metric."""

    option: str
    metric: str | None
    parameter: str


@dataclass(frozen=True)
class Chosen:
    """The preset of a run, and the command line around it."""

    preset: Preset
    context: typer.Context

    def overruled(self) -> list[str]:
        """What was typed of what the preset says, or could say inside its expressions."""
        out = []
        for option in self.context.command.params:
            name, word = str(option.name), max(option.opts, key=len).removeprefix("--")
            inside = name in METHODS.parameters() or "__" in name  # a metric's
            if self.typed(name) and (inside or word in self.preset.options):
                out.append(word)
        return sorted(out)

    def typed(self, option: str) -> bool:
        """Whether the command line itself gives the option (by its name in Python)."""
        source = self.context.get_parameter_source(option)
        return source is not None and source.name == "COMMANDLINE"

    def settle(self, given: dict[str, Any], flags: Iterable[Flag]) -> dict[str, Any]:
        """The options, the command line's over the preset's inside expressions too.

        A flag that was typed takes the parameter out of the preset's expressions, which would win over it; flags of the
        preset that belong to none of the methods or metrics that were typed fall away.

        Raises:
            AttrsensError: the preset compares two models, and fewer are given.
        """
        out = dict(given)
        flags = [flag for flag in flags if given.get(flag.option) is not None]
        if self.typed("param"):  # what the preset says is of other knobs
            out |= {name: [] for name in ("values_", "reference") if name in out and not self.typed(name)}
        elif self.typed("values_") and not self.typed("reference"):
            out["reference"] = []
        for option in ("method", "metrics"):
            mine = [flag for flag in flags if (flag.metric is None) == (option == "method")]
            texts: list[str] = out.get(option) or []
            if self.typed(option):
                present = set().union(*map(_parameters if option == "method" else _metrics, texts))
                for flag in mine:
                    stray = (flag.parameter if flag.metric is None else flag.metric) not in present
                    if stray and not self.typed(flag.option):
                        out[flag.option] = None
            else:
                typed = [flag for flag in mine if self.typed(flag.option)]
                out[option] = [without(text, _taken(text, typed)) for text in texts] or None
        if self.preset.pair and len(out.get("model") or []) < 2:
            raise AttrsensError(
                f"preset {self.preset.name} compares two models, the regular one first: give --model twice, such as "
                f"{self.preset.pair}"
            )
        return out

    def fitted(self, request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The request with pixel values as the models' side wants them and the models loaded, and what the report
        states of the preset.

        Raises:
            AttrsensError: models of several sides, or a knob whose values would become one.
        """
        facts = {**self.preset.stamp(), "scale": None, "overruled": self.overruled()}
        if not self.preset.side:
            return request, facts
        from attrsens.engine.inputs import expand
        from attrsens.engine.prepare import load_models
        from attrsens.engine.scaling import Scale, crop_of

        expand(request["images"], limit=request["limit"], frame=request["frame"])  # before anything is loaded
        how = "arch preprocess classes sha256 device precision fold batch offline cache cache_dir".split()
        classifiers = load_models(request["model"], **{name: request[name] for name in how})
        scale = Scale(self.preset.side, crop_of(classifiers, self.preset.name))
        try:
            request = scale.request(request, self.typed)
        except AttrsensError as error:
            raise AttrsensError(f"preset {self.preset.name}: {error}") from None
        return {**request, "model": classifiers}, {**facts, "scale": scale.facts()}


def choose(context: typer.Context, name: str | None) -> Chosen | None:
    """Read the preset before any other option is looked at, and make its values the defaults of this call.

    Raises:
        AttrsensError: the preset cannot be read, is another command's, or has what this command has not.
    """
    if name is None or context.resilient_parsing:
        return None
    preset = load(name)
    if preset.command != context.command.name:
        raise AttrsensError(
            f"preset {preset.name} is for 'attrsens {preset.command}', not for 'attrsens {context.command.name}'"
        )
    context.default_map = defaults(preset, context)
    return Chosen(preset, context)


def defaults(preset: Preset, context: typer.Context) -> dict[str, Any]:
    """The values of a preset by the names that options have in Python, checked as if they were typed.

    Raises:
        AttrsensError: names the preset, the option and the rule.
    """
    words = {o.removeprefix("--"): p for p in context.command.params for o in p.opts if o.startswith("--")}
    out: dict[str, Any] = {}
    for key, value in preset.options.items():
        if key not in words:
            hint = f"see 'attrsens {preset.command} --help'"
            raise AttrsensError(f"preset {preset.name}: {unknown('option', key, words, hint)}")
        option = words[key]
        assert option.name
        out[option.name] = typed = _as_typed(preset, key, value, option)
        try:
            option.process_value(context, typed)
        except typer.BadParameter as error:
            raise preset.wrong(key, f"{error.message}; got {value!r}") from None
    return out


def _as_typed(preset: Preset, key: str, value: Option, option: Any) -> Any:
    """What a TOML value is on the command line: a switch is true or false, all else is text."""
    items: list[Scalar] = value if isinstance(value, list) else [value]
    if isinstance(value, list) and not option.multiple:
        raise preset.wrong(key, f"takes one value; got {len(value)}")
    if option.is_flag:
        if not isinstance(value, bool):
            raise preset.wrong(key, f"must be true or false; got {value!r}")
        return value
    texts = [as_text(item) for item in items]
    return texts if option.multiple else texts[0]


def _taken(text: str, typed: list[Flag]) -> set[str]:
    """The parameters of an expression that typed flags give."""
    name = text.partition(":")[0].strip()
    return {flag.parameter for flag in typed if flag.metric in (None, name)}


def _parameters(expression: str) -> set[str]:
    """The parameters of the method of an expression; none of one that does not exist, which is an error later."""
    name = expression.partition(":")[0].partition("+")[0].strip()
    return {hyper.name for hyper in METHODS[name].hypers} if name in METHODS else set()


def _metrics(text: str) -> set[str]:
    """The metrics that a text names."""
    return {part.strip() for part in (text.partition(":")[0] if ":" in text else text).split(",")}


PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME|FILE.toml",
        help="A named set of option values ('attrsens list presets'); what you type wins.",
        callback=choose,
        is_eager=True,
        autocompletion=lambda incomplete: [name for name in shipped() if name.startswith(incomplete)],
        rich_help_panel="Running",
    ),
]

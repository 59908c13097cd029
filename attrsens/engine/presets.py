"""Presets: named sets of option values, read from TOML; the published experiments are shipped.

A file is untrusted: it is small, data only, and sets neither where results go nor what code runs.
"""

from __future__ import annotations

import hashlib
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attrsens.engine.cell import parse_calls
from attrsens.engine.inputs import printable
from attrsens.engine.metrics import parse_metrics
from attrsens.errors import AttrsensError, InputError, unknown
from attrsens.images import read_bytes
from attrsens.spec import ATTACKS, METHODS, SCORES, SIMILARITIES, Registry, split_expression

FOLDER = Path(__file__).parent.parent / "presets"
COMMANDS = ("explain", "sweep", "compare", "attack", "score")
LINES = ("what", "question", "source", "cost", "follows", "pair", "setting", "lost")
LIMIT = 2**16  # bytes of a file
# where results go, how the program runs and what it says are for whoever types the command
WITHHELD = frozenset(
    "images preset out json force update plan cache-dir cache-limit no-cache jobs quiet verbose no-progress debug "
    "help".split()
)

Scalar = str | int | float | bool
Option = Scalar | list[Scalar]
Row = dict[str, Any]
PLACES = ("where", "over")  # in a row: which of the run's numbers it is held against, or the ratio of which


@dataclass(frozen=True)
class Preset:
    """A named set of option values.

    Attributes:
        name: of a shipped preset, or the file's name.
        command: the command whose options they are.
        options: values by option, as on the command line without its dashes; every list is a repeated option.
        what, question, source, cost: a line each, for people.
        follows: where paper and published code differ, which one this is; and what it cannot reproduce.
        pair: two models that will do, as one would type them; the preset then wants two models at least.
        setting: the models and the data of the published numbers.
        lost: what the paper no longer tells, and what stands in.
        side: of the input that pixel values are meant for; they are scaled to the model's. 0: they are not.
        published: the numbers to compare with: a text, or rows (`engine.beside`) {"of": ..., quantity: number or
            [mean, sd]}.
        sha256: of the file's bytes.
    """

    name: str
    command: str
    options: dict[str, Option]
    sha256: str
    what: str = ""
    question: str = ""
    source: str = ""
    cost: str = ""
    follows: str = ""
    pair: str = ""
    setting: str = ""
    lost: str = ""
    side: int = 0
    published: str | list[Row] = ""

    def stamp(self) -> dict[str, Any]:
        """What the report states of it."""
        names = ("name", "sha256", "what", "source", "setting", "lost", "published")
        return {name: getattr(self, name) for name in names}

    def entry(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return asdict(self)

    def numbers(self, most: int | None = None) -> str:
        """The published numbers as a line, of at most so many rows."""
        if isinstance(self.published, str):
            return self.published
        shown = self.published[:most]
        rest = len(self.published) - len(shown)
        return "; ".join([*map(_row_text, shown), *([f"and {rest} more rows"] if rest else [])])

    def wrong(self, key: str, problem: str) -> AttrsensError:
        """The error for one of the options."""
        return AttrsensError(f"preset {self.name}: {key}: {problem}")


def load(name: str) -> Preset:
    """A shipped preset by name, or one from a file whose name ends with .toml.

    Raises:
        AttrsensError: no such preset or file, no TOML, unknown keys, values of the wrong type, values that no method
            or metric takes: one line with file and key.
    """
    if name.lower().endswith(".toml"):
        return read(Path(name))
    if name not in shipped():
        listing = f"presets: {', '.join(shipped())}; the name of a file of yours ends with .toml"
        raise unknown("preset", printable(name), shipped(), listing)
    return read(FOLDER / f"{name}.toml", name)


def shipped() -> list[str]:
    """The names of the presets that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def presets() -> Iterator[Preset]:
    """The presets that come with the package."""
    return map(load, shipped())


def read(path: Path, name: str | None = None) -> Preset:
    """A preset from a file.

    Args:
        name: what to call it; the file's name without this.

    Raises:
        AttrsensError: as `load`.
    """
    name = name or printable(path.name)
    try:
        data = read_bytes(path, what="presets")
    except InputError as error:
        raise AttrsensError(f"preset {printable(str(error))}") from None
    if len(data) > LIMIT:
        raise AttrsensError(f"preset {name}: {len(data):,} bytes; a preset has at most {LIMIT:,}")
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise AttrsensError(f"preset {name}: no UTF-8 text, so no TOML") from None
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else printable(str(error))
        raise AttrsensError(f"preset {name}: no valid TOML: {why}") from None
    preset = _build(name, table, hashlib.sha256(data).hexdigest())
    _check_values(preset)
    return preset


def without(expression: str, parameters: set[str]) -> str:
    """A method or metric expression without these parameters of its own (those of wrappers stay)."""
    head, *wrappers = split_expression(expression)
    name, colon, rest = head.partition(":")
    kept = [part for part in rest.split(",") if part.partition("=")[0].strip() not in parameters]
    return "+".join([f"{name}:{','.join(kept)}" if colon and kept else name, *wrappers])


def _build(name: str, table: Mapping[str, Any], sha256: str) -> Preset:
    known = ("command", *LINES, "side", "published", "options")
    for key in table:
        if key not in known:
            raise AttrsensError(f"preset {name}: {unknown('key', printable(key), known)}")
    for key in ("command", "options"):
        if key not in table:
            raise AttrsensError(f"preset {name}: {key} is missing")
    for key in ("command", *LINES):
        if not isinstance(table.get(key, ""), str):
            raise AttrsensError(f"preset {name}: {key} must be text; got {_shown(table[key])}")
    if table["command"] not in COMMANDS:
        raise AttrsensError(f"preset {name}: {unknown('command', printable(table['command']), COMMANDS)}")
    for key in ("what", "lost"):
        if "\n" in table.get(key, "").strip():
            raise AttrsensError(f"preset {name}: {key} must be one line")
    side = table.get("side", 0)
    if "side" in table and (not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= 10_000):
        raise AttrsensError(f"preset {name}: side must be an integer from 1 to 10,000; got {_shown(side)}")
    lines = {key: " ".join(table.get(key, "").split()) for key in LINES}
    options = _options(name, table["options"])
    published = _published(name, table.get("published", ""))
    return Preset(name, table["command"], options, sha256, side=side, published=published, **lines)


def _options(name: str, table: object) -> dict[str, Option]:
    if not isinstance(table, dict):
        raise AttrsensError(f"preset {name}: options must be a table; got {_shown(table)}")
    for key, value in table.items():
        shown = printable(key)
        if key in WITHHELD:
            raise AttrsensError(f"preset {name}: {shown}: not for a preset to say; give it on the command line")
        items = value if isinstance(value, list) else [value]
        if not items or not all(map(_is_scalar, items)):
            rule = "must be text, a finite number, true or false, or a list of them"
            raise AttrsensError(f"preset {name}: {shown} {rule}; got {_shown(value)}")
        if key == "arch" and any(str(item).startswith("py:") for item in items):
            raise AttrsensError(f"preset {name}: arch: a preset runs no code; give {items[0]} on the command line")
    return dict(table)


def _published(name: str, value: object) -> str | list[Row]:
    if isinstance(value, str):
        return " ".join(value.split())
    rule = 'published must be text, or rows such as {of = "grad", ssim = 0.4, gini = [0.56, 0.04]}'
    if not isinstance(value, list) or not all(
        isinstance(row, dict) and isinstance(row.get("of"), str) for row in value
    ):
        raise AttrsensError(f"preset {name}: {rule}; got {_shown(value)}")
    for row in value:
        for key, numbers in row.items():
            pair = numbers if isinstance(numbers, list) else [numbers]
            fine = len(pair) in (1, 2) and all(_is_number(n) for n in pair)
            if key in PLACES:
                fine = _is_place(numbers)
            if key not in ("of", "text") and not fine:
                raise AttrsensError(f"preset {name}: {rule}; got {printable(key)} = {_shown(numbers)}")
            if key == "text" and not isinstance(numbers, str):
                raise AttrsensError(f"preset {name}: {rule}; got text = {_shown(numbers)}")
    return value


def _check_values(preset: Preset) -> None:
    """What methods and metrics say of the values, with the preset's name in front."""
    for key, value in preset.options.items():
        texts = [as_text(item) for item in value] if isinstance(value, list) else [as_text(value)]
        metrics = [
            (registry[metric], parameter.name)
            for registry in (SCORES, SIMILARITIES)
            for metric in registry
            for parameter in registry[metric].hypers
            if f"{metric}-{parameter.name}".replace("_", "-") == key
        ]
        registry = ATTACKS if preset.command == "attack" else METHODS
        owners = registry.owners(key.replace("-", "_"))
        try:
            if key == "method":
                parse_calls(texts, {})
            elif key == "metrics":
                parse_metrics(texts)
            elif metrics:
                metrics[0][0].parse(metrics[0][1], texts[0])
            elif owners:
                for text in texts[0].split(",") if key == "eps" else texts[:1]:
                    _parse_any(registry, owners, key.replace("-", "_"), text)
        except AttrsensError as error:
            raise preset.wrong(printable(key), str(error)) from None


def _parse_any(registry: Registry, owners: list[str], parameter: str, text: str) -> None:
    """Raise if no entry takes the value."""
    errors = []
    for owner in owners:
        try:
            registry[owner].parse(parameter, text)
            return
        except AttrsensError as error:
            errors.append(error)
    raise errors[0]


def as_text(value: Scalar) -> str:
    """A value as one would type it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_number(value: object) -> bool:
    fits = sys.float_info.max  # which neither infinity nor an integer of hundreds of digits does
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= fits


def _is_scalar(value: object) -> bool:
    return isinstance(value, (str, bool)) or _is_number(value)


def _is_place(value: object) -> bool:
    """Whether it is a table of scalars, and of the other place of a pair."""
    if not isinstance(value, dict):
        return False
    return all(_is_scalar(v) or (k == "to" and _is_place(v)) for k, v in value.items())


def _shown(value: object) -> str:
    """A value in a message: its beginning, on one line."""
    try:
        text = printable(repr(value))
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def _row_text(row: Row) -> str:
    kind = "ratio of " if "over" in row else ""
    facts = [f"{kind}{key} {_number_text(value)}" for key, value in row.items() if key not in ("of", "text", *PLACES)]
    return f"{row['of']}: {', '.join([*facts, *([row['text']] if 'text' in row else [])])}"


def _number_text(value: str | float | list[float]) -> str:
    return f"{value[0]:g} sd {value[1]:g}" if isinstance(value, list) and len(value) == 2 else f"{value:g}"

"""The generated parts of the README."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrsens.engine.presets import presets
from attrsens.models.cards import read_card
from attrsens.models.shipped import shipped
from attrsens.params import written
from attrsens.samples import samples
from attrsens.spec import ATTACKS, METHODS, SCORES, SIMILARITIES, WRAPPERS, Hyper
from attrsens.training import RECIPES

if TYPE_CHECKING:
    from attrsens.models.classifier import Classifier


def methods_table() -> str:
    """Every method with its own parameters, then the four that all have."""
    lines = ["| method | what | cost of a map | parameters (default; published sweep) |", "|---|---|---|---|"]
    for name in METHODS:
        spec = METHODS[name]
        own = "; ".join(_parameter(h) for h in spec.own()) or "none"
        lines.append(f"| `{name}` | {spec.summary} | {spec.traits['cost']} | {own} |")
    lines.append("")
    lines.append("Every method also has:")
    lines.append("")
    for hyper in METHODS.common:
        others = {n: h.default for n, h in METHODS.parameters()[hyper.name].items() if h.default != hyper.default}
        default = ", ".join([f"default {hyper.default}", *(f"{n}: {d}" for n, d in others.items())])
        lines.append(f"- `{hyper.name}` ({', '.join(hyper.param.choices)}; {default}): {hyper.param.help}")
    return "\n".join(lines)


def wrappers_table() -> str:
    """Every wrapper with its parameters."""
    lines = ["| wrapper | what | cost of a map | parameters (default; published sweep) |", "|---|---|---|---|"]
    for name in WRAPPERS:
        spec = WRAPPERS[name]
        own = "; ".join(_parameter(h) for h in spec.hypers) or "none"
        lines.append(f"| `+{name}` | {spec.summary} | {spec.traits['cost']} | {own} |")
    return "\n".join(lines)


def recipes_table() -> str:
    """Every recipe of `train` with its own parameters, then those that all have."""
    lines = ["| recipe | what | parameters (default) |", "|---|---|---|"]
    for name in RECIPES:
        own = "; ".join(_parameter(h) for h in RECIPES[name].own()) or "none"
        lines.append(f"| `{name}` | {RECIPES[name].summary} | {own} |")
    lines += ["", "Every recipe also has:", ""]
    for hyper in RECIPES.common:
        others = {n: h.default for n, h in RECIPES.parameters()[hyper.name].items() if h.default != hyper.default}
        default = ", ".join([f"default {hyper.default}", *(f"{n}: {d}" for n, d in others.items())])
        lines.append(f"- `{hyper.name}` ({default}): {hyper.param.help}")
    return "\n".join(lines)


def metrics_table() -> str:
    """Every score, then every similarity: what it is, which way is better, its cost, its own parameters."""
    lines = []
    for registry, word in ((SCORES, "score"), (SIMILARITIES, "similarity of two maps")):
        lines += [f"| {word} | what | better | passes | parameters (default) |", "|---|---|---|---|---|"]
        for name in registry:
            spec = registry[name]
            own = "; ".join(f"`{h.name}` {_default(h)}" for h in spec.own()) or "none"
            wants = " (needs `--annotations`)" if spec.traits.get("regional") else ""
            facts = (spec.summary + wants, spec.traits["direction"], spec.traits.get("cost", "none"), own)
            lines.append(f"| `{name}` | {' | '.join(str(fact).replace('|', '&#124;') for fact in facts)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def attacks_table() -> str:
    """Every attack: what it does, on which methods, its cost and parameters; those that several share stand below."""
    lines = ["| attack | what | of | cost of an attack | parameters of its own (default) |", "|---|---|---|---|---|"]
    shared: dict[tuple[str, str], dict[str, list[str]]] = {}  # (name, help): attacks by default
    for name, owners in ATTACKS.parameters().items():
        for attack, hyper in owners.items():
            shared.setdefault((name, hyper.param.help), {}).setdefault(_default(hyper), []).append(attack)
    shared = {key: found for key, found in shared.items() if sum(map(len, found.values())) > 1}
    for name in ATTACKS:
        spec, traits = ATTACKS[name], ATTACKS[name].traits
        own = "; ".join(_parameter(h) for h in spec.hypers if (h.name, h.param.help) not in shared) or "none"
        of = "maps of any method" if traits.get("maps", True) else "images"
        of = "maps that have a gradient" if traits.get("differentiable") else of
        lines.append(f"| `{name}` | {spec.summary} | {of} | {traits['cost']} | {own} |")
    lines += ["", "Several have:", ""]
    for (name, text), found in sorted(shared.items()):
        told = "; ".join(f"{', '.join(attacks)}: {value}" for value, attacks in found.items())
        lines.append(f"- `{name}` ({told}): {text}")
    return "\n".join(lines)


def predictions(f: Classifier) -> dict[str, str | None]:
    """Why each method cannot explain a network at its defaults, or None: what doctor says, without the rest of it.

    Args:
        f: made with fold=False.
    """
    from attrsens.engine.cell import parse_call
    from attrsens.engine.doctor import FEW, pictures, unfit
    from attrsens.engine.plan import cost
    from attrsens.errors import AttrsensError
    from attrsens.models.census import Facts, look_at_gradients, take_census

    pixels = pictures(f)[0][:FEW]
    with f.exact():
        facts = Facts(take_census(f.network, f.normalised(pixels[:1])), look_at_gradients(f, pixels), f.network)
    out: dict[str, str | None] = {}
    for name in METHODS:
        out[name] = unfit(name, facts)
        try:
            cost(f, parse_call(name), (pixels.shape[2], pixels.shape[3]))
        except AttrsensError as error:
            out[name] = out[name] or str(error)
    return out


def support_table(found: Mapping[str, Mapping[str, str | None]]) -> str:
    """Which methods explain which networks, and why not; those that explain all stand in a line above the table.

    Args:
        found: for every network what `predictions` says of it.
    """
    names = list(next(iter(found.values())))
    columns = [m for m in names if any(reasons[m] for reasons in found.values())]
    everywhere = ", ".join(f"`{m}`" for m in names if m not in columns)
    lines = [f"On every network of the table: {everywhere}.", ""]
    lines += [f"| network | {' | '.join(f'`{m}`' for m in columns)} |", "|---" * (len(columns) + 1) + "|"]
    for network, reasons in found.items():
        lines.append(f"| {network} | {' | '.join(reasons[m] or 'yes' for m in columns)} |")
    return "\n".join(lines)


def samples_table() -> str:
    """Every packaged picture with its source, licence and what the default model sees."""
    lines = ["| name | what | source | licence | lite0's top-1 |", "|---|---|---|---|---|"]
    for s in samples().values():
        lines.append(f"| `sample:{s.name}` | {s.what} | {s.source} | {s.licence} | {s.top1}, {s.probability:.2f} |")
    return "\n".join(lines)


def presets_table(rows: int = 4) -> str:
    """Every shipped preset: its command, what it does, costs and is compared with.

    Args:
        rows: how many of a preset's published numbers are shown.
    """
    lines = ["| preset | command | what | cost | published | source |", "|---|---|---|---|---|---|"]
    for p in presets():
        lost = f"; lost: {p.lost}" if p.lost else ""
        lines.append(f"| `{p.name}` | `{p.command}` | {p.what} | {p.cost} | {p.numbers(rows)} | {p.source}{lost} |")
    return "\n".join(lines)


def doctor_text() -> str:
    """What `attrsens doctor` prints of the default model, without its file's place, as a code block."""
    from attrsens.cli import doctor
    from attrsens.engine.doctor import doctor as examine

    lines: list[str] = []
    found = examine("lite0", device="cpu")
    found.model.source = None
    doctor.show(found, lines.append)
    return "```\n" + "\n".join(line[:160] for line in lines) + "\n```"


def help_text(*command: str) -> str:
    """What `attrsens COMMAND --help` prints, 100 columns wide, as a code block."""
    command = command or ("explain",)
    environment = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "PATH": "", "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "attrsens", *command, "--help"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return "```\n" + "\n".join(line.rstrip() for line in done.stdout.strip().splitlines()) + "\n```"


def shipped_table() -> str:
    """The networks that come with attrsens, with the accuracies of their cards."""
    budgets = [("linf", 2 / 255, "Linf 2/255"), ("linf", 8 / 255, "Linf 8/255"), ("l2", 0.5, "L2 0.5")]
    kinds = ("PGD-20", "AutoPGD")
    heads = ["model", "recipe", "clean", *(f"{kind} {words}" for _, _, words in budgets for kind in kinds)]
    lines = [f"| {' | '.join(heads)} |", f"|---|---|{'---:|' * (len(heads) - 2)}"]
    for name, (_, path) in shipped().items():
        card = read_card(path)
        assert card is not None
        recipe, found = card.told["recipe"], {}
        for a in card.told["accuracy"]:
            found[a["kind"], a["norm"], round(a["eps"] or 0, 4)] = f"{a['value']:.1%}"
        own = [h.name for h in RECIPES[recipe["name"]].own() if recipe["parameters"].get(h.name)]
        given = ", ".join(f"{k} {_short(recipe['parameters'][k])}" for k in own)
        cells = [f"`{name}`", f"{recipe['name']}{f' ({given})' if given else ''}", found["clean", None, 0]]
        cells += [found.get((kind, norm, round(eps, 4)), "") for norm, eps, _ in budgets for kind in kinds]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _short(value: object) -> str:
    return f"{round(value * 255)}/255" if isinstance(value, float) and value < 0.1 else str(value)


def _parameter(hyper: Hyper) -> str:
    sweep = ", ".join(map(written, hyper.param.sweep))
    return f"`{hyper.name}` {hyper.param.help} ({_default(hyper)}{'; ' + sweep if sweep else ''})"


def _default(hyper: Hyper) -> str:
    return "none" if hyper.default == "" else written(hyper.default)

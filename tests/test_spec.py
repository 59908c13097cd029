"""Specs: what is read from a signature, what is refused, and how the messages read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import pytest

from attrsens.engine.cell import choose_method, parse_call, parse_calls
from attrsens.errors import AttrsensError
from attrsens.spec import METHODS, Hyper, Param, Registry, read_hypers


def registry() -> Registry:
    return Registry("thing", "attrsens.methods")


def test_only_what_stands_right_of_the_star_is_read() -> None:
    def f(a: NoSuchType, b: AlsoNot, *, n: Annotated[int, Param("n", min=1)] = 3) -> Nowhere:  # noqa: F821
        """One line."""

    (hyper,) = read_hypers(f)
    assert (hyper.name, hyper.type, hyper.default) == ("n", int, 3)


@pytest.mark.parametrize(
    "text",
    [
        "def f(x, *, n=3): pass",
        "def f(x, *, n: int = 3): pass",
        "def f(x, *, n: Annotated[list, Param('n')] = 3): pass",
        "def f(x, *, n: Annotated[int, 'n'] = 3): pass",
        "def f(x, *, n: Annotated[int, Param('n')]): pass",
    ],
)
def test_a_parameter_without_its_facts_is_refused(text: str) -> None:
    space = {"Annotated": Annotated, "Param": Param, "__name__": __name__}
    exec(text, space)
    with pytest.raises(TypeError, match=r"Annotated|needs a default"):
        read_hypers(space["f"])  # type: ignore[arg-type]


def test_registering_twice_or_a_common_name_is_refused() -> None:
    def f(*, output: Annotated[str, Param("clash")] = "x") -> None:
        """Clash."""

    with pytest.raises(TypeError, match="has a parameter twice"):
        METHODS("clash", version=1, gradient=True, cost="0")(f)
    with pytest.raises(TypeError, match="registered twice"):
        METHODS("grad", version=1, gradient=True, cost="0")(f)
    with pytest.raises(TypeError, match="state gradient and cost"):
        METHODS("bare", version=1)(f)
    assert "clash" not in METHODS


def test_a_default_outside_its_range_is_refused() -> None:
    def f(*, n: Annotated[int, Param("n", min=1)] = 0) -> None:
        """Wrong."""

    with pytest.raises(AttrsensError, match="at least 1"):
        registry()("wrong", version=1)(f)


INT = Hyper("n", int, 1, Param("n", min=0, max=9))
FLOAT = Hyper("r", float, 1.0, Param("r", min=0))
BOOL = Hyper("b", bool, True, Param("b"))
WORD = Hyper("w", str, "a", Param("w", choices=("a", "b")))
FILE = Hyper("p", Path, "", Param("p"))


@pytest.mark.parametrize(
    ("hyper", "given", "value"),
    [
        (INT, "7", 7),
        (INT, 7.0, 7),
        (FLOAT, "1e-3", 0.001),
        (FLOAT, 2, 2.0),
        (BOOL, "yes", True),
        (BOOL, "OFF", False),
        (WORD, "b", "b"),
        (FILE, Path(__file__), __file__),
        (FILE, Path(), ""),
    ],
)
def test_values_are_parsed_into_their_type(hyper: Hyper, given: object, value: object) -> None:
    found = hyper.check(given, "m")
    assert found == value
    assert type(found) is type(value)


def test_large_seeds_keep_every_digit() -> None:
    assert METHODS["sg"].parse("seed", str(2**63 - 1)) == 2**63 - 1


@pytest.mark.parametrize(
    ("hyper", "given", "rule"),
    [
        (INT, "x", "an integer from 0 to 9; got 'x'"),
        (INT, "1.5", "an integer from 0 to 9"),
        (INT, 1.5, "an integer from 0 to 9"),
        (INT, 10, "an integer from 0 to 9"),
        (INT, True, "an integer from 0 to 9"),
        (FLOAT, -0.1, "a number of at least 0"),
        (FLOAT, math.nan, "a number of at least 0"),
        (FLOAT, "inf", "a number of at least 0"),
        (BOOL, "maybe", "true or false"),
        (WORD, "c", "one of a, b; got 'c'"),
        (WORD, 3, "one of a, b"),
        (FILE, 3, "a file"),
    ],
)
def test_other_values_are_refused_with_the_rule(hyper: Hyper, given: object, rule: str) -> None:
    with pytest.raises(AttrsensError) as error:
        hyper.check(given, "m")
    assert str(error.value).startswith(f"m: {hyper.name} must be {rule}")


def test_complete_fills_in_defaults_in_declared_order() -> None:
    found = METHODS["sg"].complete({"spread": "0.3"})
    assert list(found) == ["n", "spread", "seed", "output", "space", "sign", "reduce"]
    assert found["n"] == 50
    assert found["spread"] == 0.3


def test_output_defaults_are_the_papers() -> None:
    """methods 1.5: logit for gradients, probability for IG and the sliding patch."""
    want = dict.fromkeys("grad gi sg ug gbp gradcam ggradcam lrp deeplift bsm big bsg".split(), "logit")
    want |= dict.fromkeys("ig sp lime rise kshap mp agi".split(), "prob")
    assert {name: METHODS[name].complete()["output"] for name in want} == want


def test_expressions_win_over_flags_and_flags_reach_every_owner() -> None:
    sg, gi, other = parse_calls(["sg:n=10", "gi", "sg"], {"n": "20", "reduce": "sum"})
    assert (sg.parameters["n"], other.parameters["n"]) == (10, 20)
    assert sg.parameters["reduce"] == gi.parameters["reduce"] == "sum"


@pytest.mark.parametrize(
    ("expressions", "flags", "message"),
    [
        (["gs"], {}, f"unknown method 'gs'; did you mean 'sg'? methods: {', '.join(METHODS)}"),
        (["sg:m=3"], {}, "unknown parameter 'm'; sg has: n, spread, seed, output, space, sign, reduce"),
        (["sg:n"], {}, "method 'sg:n': cannot read 'n'; write name:parameter=value,..."),
        (["sg:n=1,n=2"], {}, "method 'sg:n=1,n=2': n is given twice"),
        (["sg+smoth:n=3"], {}, "unknown wrapper 'smoth'; did you mean 'smooth'? wrappers: smooth, softplus, topk"),
        (["sg", "ig"], {"stride": "3"}, "sg, ig has no parameter 'stride'; methods that have it: sp"),
        (["sg"], {"nothing": "3"}, "sg has no parameter 'nothing'; no method has it"),
    ],
)
def test_messages(expressions: list[str], flags: dict[str, object], message: str) -> None:
    with pytest.raises(AttrsensError) as error:
        parse_calls(expressions, flags)
    assert str(error.value) == message


def test_a_seed_is_welcome_everywhere() -> None:
    assert "seed" not in parse_calls(["grad"], {"seed": "3"})[0].parameters


def test_the_method_is_the_one_that_has_the_parameters() -> None:
    assert choose_method({}) == choose_method({"seed": 1, "reduce": "sum"}) == "grad"
    assert choose_method({"patch_size": 3}) == "sp"
    assert choose_method({"steps": 3, "trials": 2}) == "ig"
    with pytest.raises(AttrsensError, match="parameter n and stride: no method has all of them; choose with --method"):
        choose_method({"n": 3, "stride": 2})


def test_parameters_of_one_call_in_any_order_are_one_expression() -> None:
    assert parse_call("sg:spread=0.3,n=5") == parse_call("sg:n=5,spread=0.3")

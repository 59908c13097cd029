"""The README is true: its generated parts are fresh, its options exist, its example method works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import zoo
from toys import small, uniform

import attrsens
from attrsens import METHODS
from attrsens.cli import readme

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def generated(function: str) -> str:
    found = re.search(rf"{function}\(\)\)\n\]\]\] -->\n(.*?)\n<!-- \[\[\[end\]\]\] -->", TEXT, re.S)
    assert found, function
    return found[1]


@pytest.mark.parametrize(
    "function",
    [
        "methods_table",
        "shipped_table",
        "metrics_table",
        "wrappers_table",
        "attacks_table",
        "samples_table",
        "presets_table",
        "recipes_table",
    ],
)
def test_tables_are_fresh(function: str) -> None:
    assert generated(function) == getattr(readme, function)(), "run: cog -r README.md"


def test_the_support_table_is_fresh() -> None:
    assert generated("support_table") == zoo.support_table(), "run: cog -r README.md"


def test_help_is_fresh() -> None:
    """Compared without spaces and frames, which belong to the terminal library's version."""
    bare = [re.sub(r"[\s─-╿]", "", text) for text in (generated("help_text"), readme.help_text())]
    assert bare[0] == bare[1], "run: cog -r README.md"


def test_every_option_in_the_examples_exists() -> None:
    from attrsens.cli.attack import attack
    from attrsens.cli.explain import explain
    from attrsens.cli.score import score
    from attrsens.cli.train import train

    for command, least in ((explain, 7), (score, 5), (attack, 5), (train, 4)):
        names = [name.replace("__", "-").replace("_", "-") for name in command.__annotations__]
        known = {f"--{name}" for name in names} | {"--method", "--target", "--model", "--from"}
        lines = re.findall(rf"^attrsens {command.__name__} .*$", TEXT, re.M)
        assert len(lines) >= least
        for line in lines:
            words = shlex.split(line.split("|")[0], comments=True)
            assert {w for w in words if w.startswith("--")} <= known, line


def test_the_example_method_works() -> None:
    code, _ = re.findall(r"```python\n(from typing import Annotated.*?)```", TEXT, re.S)
    space: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), space)
    try:
        spec = METHODS["zg"]
        x = uniform(3, 16, 16)
        full = attrsens.Explainer(small(), spec, 1, spec.complete({"keep": 1}), "a").raw(x).map
        part = attrsens.Explainer(small(), spec, 1, spec.complete(), "a").raw(x).map
        assert torch.equal(full, small().gradient(x, 1))
        assert 0.09 < float((part != 0).float().mean()) < 0.11
    finally:
        METHODS.remove("zg")


def test_pictures_exist() -> None:
    paths = re.findall(r"!\[[^]]*\]\(([^)]+)\)", TEXT)
    assert paths
    assert all((ROOT / p).is_file() for p in paths)


def test_the_shipped_schema_is_the_generated_one() -> None:
    import json

    path = Path(attrsens.__file__).parent / "engine" / "report.schema.json"
    from attrsens.engine.report import json_schema

    assert json.loads(path.read_text()) == json_schema()


def test_the_example_score_works() -> None:
    """One function: it is found by expressions, flags, the list and the report, and held to its parameters."""
    from attrsens.cli.listing import WHAT
    from attrsens.cli.options import runs

    _, code = re.findall(r"```python\n(from typing import Annotated.*?)```", TEXT, re.S)
    space: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), space)
    try:
        image = (uniform(16, 16, 3) * 255).to(torch.uint8).numpy()
        options = {"model": small(), "method": "grad", "cache": False}
        report = attrsens.score(image, metrics=["kept", "kept:share=1"], **options)
        scores = report.records[0].scores
        assert scores["kept:share=1.0"].value == pytest.approx(report.records[0].target.probability, rel=1e-5)
        assert scores["kept"].value < 1
        assert "all but the 0.1 largest values" in scores["kept"].definition
        assert (scores["kept"].passes.forward, scores["kept"].passes.backward) == (1, 0)
        assert "kept" in [row["name"] for row in WHAT["metrics"]()]
        command = runs(metrics=True)(lambda values, flags, metric_flags: 0)
        assert "kept__share" in command.__annotations__
        with pytest.raises(attrsens.AttrsensError, match="kept: share must be a number from 0 to 1"):
            attrsens.score(image, metrics="kept:share=2", **options)
    finally:
        attrsens.SCORES.remove("kept")

"""The layout: a module imports lower floors only, only cli prints or imports typer, render imports no torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import attrsens

ROOT = Path(attrsens.__file__).parent
FLOORS = {
    "errors": -3, "samples": -2, "params": -1, "spec": 0, "seeds": 0, "places": 0,
    "images": 1, "heatmaps": 1, "regions": 1,
    "models": 2,
    "explainer": 3, "boundary": 3,
    "methods": 4, "similarity": 4, "scores": 4, "attacks": 4, "training": 4,
    "engine": 5,
    "render": 6,
    "cli": 7, "__main__": 8, "__init__": 8,
}  # fmt: skip


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        yield name, ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[str]:
    """Every imported module, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor_of(module: str) -> tuple[str, int]:
    top = module.split(".")[0]
    assert top in FLOORS, f"{module}: give its floor in this test and in the design"
    return top, FLOORS[top]


def test_imports_go_down() -> None:
    seen = 0
    for name, tree in modules():
        top, floor = floor_of(name)
        for target in imports(tree):
            if target.startswith("attrsens."):
                other, below = floor_of(target.removeprefix("attrsens."))
                assert other == top or below < floor, f"{name} imports {target}"
                seen += 1
    assert seen > 50


def test_only_cli_prints_or_imports_typer() -> None:
    for name, tree in modules():
        if name.split(".")[0] != "cli":
            assert not any(t.split(".")[0] in ("typer", "rich", "click") for t in imports(tree)), name
            calls = [n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
            assert "print" not in calls, name


def test_render_imports_no_torch() -> None:
    for name, tree in modules():
        if name.split(".")[0] in ("render", "errors", "spec", "seeds", "images", "heatmaps", "samples"):
            assert not any(t.split(".")[0] in ("torch", "torchvision") for t in imports(tree)), name


def test_method_files_import_torch_only_inside_functions() -> None:
    for name, tree in modules():
        if name.startswith("methods."):
            for node in tree.body:
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    found = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
                    assert not any(str(m).split(".")[0] == "torch" for m in found), name
                    assert not any(str(m).startswith("attrsens.models") for m in found), name


def test_files_can_be_read_at_one_sitting() -> None:
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 350, path.name

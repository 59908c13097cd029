"""What can be said of names without importing torch or torchvision."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path


@cache
def torchvision_names() -> tuple[str, ...]:
    """torchvision's classification models, read from its source text, since importing it takes a second."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return ()
    pattern = re.compile(r'^@register_model\((?:name="(\w+)")?\)\n(?:@.*\n)*def (\w+)', re.M)
    folder = Path(spec.submodule_search_locations[0]) / "models"
    found = [m for path in sorted(folder.glob("*.py")) for m in pattern.findall(path.read_text(encoding="utf-8"))]
    return tuple(sorted(given or function for given, function in found))


@cache
def timm_names() -> tuple[str, ...]:
    """timm's architectures, read from its source text likewise."""
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return ()
    pattern = re.compile(r"^@register_model\n(?:@.*\n)*def (\w+)", re.M)
    folder = Path(spec.submodule_search_locations[0]) / "models"
    texts = (path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py")))
    return tuple(sorted({name for text in texts for name in pattern.findall(text)}))

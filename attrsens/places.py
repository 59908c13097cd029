"""Where attrsens keeps what it has computed."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/attrsens`, else `~/.cache/attrsens`; made only when something is written."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "attrsens"


def weights_folder(cache: Path | None = None) -> Path:
    """Where weights that had to be read by the tensor-only reader are kept, by the sha256 of their file."""
    return (cache or cache_folder()) / "weights"

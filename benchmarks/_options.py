"""The options of benchmarks that hold attrsens against peers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from _timing import shared_options

QUICK = {"rounds": 1, "foreign": 1.0, "window": 0.05, "batches": [4], "tune": 1}


def names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """An argparse type: a comma list of known names."""

    def read(text: str) -> list[str]:
        chosen = text.split(",")
        if set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"choose among {', '.join(known)}")
        return chosen

    return read


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def peer_options(parser: argparse.ArgumentParser) -> None:
    """Those that all of them have."""
    parser.add_argument("--batches", type=numbers, default=[4, 8, 16], help="the peers' settings to try")
    parser.add_argument("--tune", type=int, default=1, help="turns of every setting; its least time counts")
    parser.add_argument("--window", type=float, default=0.5, help="seconds that a part of a round lasts at least")
    shared_options(parser, rounds=3)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, nothing discarded, README.md left as it is")
    parser.add_argument("--json", type=Path, help="also write every sample here")


def read(
    parser: argparse.ArgumentParser, quick: Mapping[str, Any], full: Mapping[str, Any] | None = None
) -> argparse.Namespace:
    """The options; what is given beside --quick, or --full where there is one, still wins.

    Args:
        quick, full: sizes by option.
    """
    a = parser.parse_args()
    if a.quick or (full and a.full):
        sizes = full if full and a.full else quick
        parser.set_defaults(**{k.replace("-", "_"): v for k, v in sizes.items()})
    if a.quick:
        parser.set_defaults(**QUICK)
    return parser.parse_args()

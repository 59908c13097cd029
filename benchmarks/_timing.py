"""What every benchmark shares: rounds on a shared machine, machine facts, and sections of README.md. Linux only.

The machine may be shared: a part of a round during which other processes used more than a given share of the CPU is
thrown away with its round. Their use is all of /proc/stat's busy time (stolen time included) minus this process's own
and that of its finished children.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import resource
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

README = Path(__file__).parent / "README.md"
TICKS = os.sysconf("SC_CLK_TCK")
MMAP_THRESHOLD = -3  # the number that mallopt knows it by


@dataclass(frozen=True)
class Usage:
    """CPU seconds up to a moment: of the whole machine, idle ones included; busy ones; this process's own."""

    total: float
    busy: float
    own: float

    @classmethod
    def now(cls) -> Usage:
        with Path("/proc/stat").open() as file:
            fields = [int(field) for field in file.readline().split()[1:9]]  # up to steal; guest time is in user
        idle = fields[3] + fields[4]  # idle and waiting for a disk
        used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        own = sum(usage.ru_utime + usage.ru_stime for usage in used)
        return cls(sum(fields) / TICKS, (sum(fields) - idle) / TICKS, own)

    def foreign(self) -> float:
        """Share of the machine's CPU time that other processes took since this moment."""
        now = Usage.now()
        total = now.total - self.total
        return max(0.0, (now.busy - self.busy) - (now.own - self.own)) / total if total else 0.0


@dataclass(frozen=True)
class Sample:
    """One measured part of a round: seconds a run, and the share of the CPU that others took meanwhile."""

    seconds: float
    foreign: float


Part = Callable[[], Sample]


def measure(run: Callable[[], object], least: float = 0.0) -> Sample:
    """Run once, and again until `least` seconds have passed; the mean."""
    before, start, count = Usage.now(), time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < least:
        run()
        count += 1
    return Sample((time.perf_counter() - start) / count, before.foreign())


@contextmanager
def stock_memory() -> Iterator[None]:
    """Freed memory as glibc itself treats it once it has adapted, and as peers meet it where attrsens is not around to
    have it kept (`keep_memory`)."""
    from attrsens.models.devices import KEPT, MMAP_MAX, TRIM_THRESHOLD

    libc = ctypes.CDLL(None)
    for option, value in ((MMAP_MAX, 65536), (MMAP_THRESHOLD, 2**25), (TRIM_THRESHOLD, 2**26)):
        libc.mallopt(option, value)
    libc.malloc_trim(0)
    try:
        yield
    finally:
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, KEPT)


def interleave(
    parts: Mapping[str, Part], rounds: int, attempts: int, foreign: float
) -> tuple[list[dict[str, Sample]], int]:
    """Rounds of every part in turn: the clean ones, and how many were discarded.

    Args:
        rounds: clean rounds wanted.
        attempts: rounds begun at most, so that a busy machine cannot hold it for ever.
        foreign: share of the CPU that others may take during a part. A round ends at the first part that exceeds it.
    """
    kept: list[dict[str, Sample]] = []
    discarded = 0
    while len(kept) < rounds and len(kept) + discarded < attempts:
        samples: dict[str, Sample] = {}
        for name, part in parts.items():
            samples[name] = part()
            if samples[name].foreign > foreign:
                discarded += 1
                say(f"  round discarded: others took {samples[name].foreign:.0%} of the CPU during {name}")
                time.sleep(1)
                break
        else:
            kept.append(samples)
    return kept, discarded


def mid(values: Sequence[float]) -> float | None:
    """Median, or None where no round was clean."""
    return median(values) if values else None


def ratio(kept: Sequence[Mapping[str, Sample]], over: str, under: str) -> float | None:
    """Median over rounds of the ratio of two parts of the same round."""
    return mid([samples[over].seconds / samples[under].seconds for samples in kept])


def seconds(kept: Sequence[Mapping[str, Sample]], part: str) -> float | None:
    """Median over rounds of one part's seconds."""
    return mid([samples[part].seconds for samples in kept])


def show(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash where nothing was measured."""
    return "-" if value is None else f"{value:.{digits}g}" if value < 100 else f"{value:.0f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, first two columns of words, the others of numbers."""
    lines = [head, [":--", ":--", *["--:"] * (len(head) - 2)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def say(text: str) -> None:
    """A line of progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def shared_options(parser: argparse.ArgumentParser, rounds: int) -> None:
    """Options that every benchmark has."""
    parser.add_argument("--rounds", type=int, default=rounds, help="clean rounds of every row (default %(default)s)")
    parser.add_argument("--attempts", type=int, help="rounds begun at most (default: four times --rounds)")
    parser.add_argument("--foreign", type=float, default=0.06, help="share of the CPU that others may take (0.06)")
    parser.add_argument("--no-readme", action="store_true", help="only print; leave README.md as it is")


def command(script: str) -> str:
    """The command that was typed, without the options that only say where results go."""
    words, given = [], iter(sys.argv[1:])
    for word in given:
        if word == "--json":
            next(given, None)
        elif word != "--no-readme" and not word.startswith("--json="):
            words.append(word)
    return shlex.join(["python", f"benchmarks/{script}", *words])


def machine(packages: Sequence[str]) -> dict[str, str]:
    """Facts that a number means nothing without; imports torch."""
    import torch

    info: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        info.setdefault(key.strip(), value.strip())
    family = f"family {info.get('cpu family', '?')}, model {info.get('model', '?')}"
    return {
        "CPU": f"{info.get('model name', platform.processor())} ({family})",
        "cores": str(os.cpu_count()),
        "torch threads": str(torch.get_num_threads()),
        "versions": ", ".join(f"{name} {version(name)}" for name in packages),
        "Python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def write_section(name: str, text: str, path: Path = README) -> None:
    """Put `text` between the markers of a section.

    Raises:
        SystemExit: the file lacks the markers.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page = path.read_text(encoding="utf-8")
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{path.name} lacks the lines {begin} and {end}")
    path.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")

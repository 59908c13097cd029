"""Freed memory stays with the process, in a process of its own: it is a setting of the whole process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from attrsens import Classifier

class Wide(torch.nn.Module):
    def forward(self, x):
        return x.flatten(1).repeat(1, 25).relu()[:, :2]  # 40 MB, which glibc by itself maps anew

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

f, x = Classifier(Wide(), (0,), (1,), fold=False, device="cpu"), torch.rand(8, 1, 224, 224)
for _ in range(5):
    f.logits(x)
before = faults()
for _ in range(10):
    f.logits(x)
print((faults() - before) / 10)
"""
PAGES = 8 * 224 * 224 * 25 * 4 / 4096


def faults(**more: str) -> float:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", FAULTS], env=plain | more, capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_passes_take_no_new_pages_unless_the_environment_says_how() -> None:
    assert faults() < PAGES / 4
    assert faults(MALLOC_TOP_PAD_="131072") > PAGES / 2

"""Memory that is free goes back to the system."""

import platform
from pathlib import Path

import pytest
import torch

from vae.device import release_memory

MIB = 2**20


def resident() -> int:
    """Bytes of this process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is free")
def test_holes_between_what_lives_on_are_given_back():
    kept, freed = [], []
    for _ in range(2000):  # below 128 KiB, so that all of it comes from the heap
        freed.append(torch.ones(100 * 1024, dtype=torch.uint8))
        kept.append(torch.ones(1024, dtype=torch.uint8))
    del freed
    before = resident()
    release_memory()
    assert before - resident() > 100 * MIB
    assert len(kept) == 2000

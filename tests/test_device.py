"""Memory that is free goes back to the system."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vae.device import release_memory

MIB = 2**20


def resident() -> int:
    """Bytes of this process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def freed_by_release() -> int:
    """Bytes given back of 200 MB that are free, in holes between what lives on."""
    kept, freed = [], []
    for _ in range(2000):  # below 128 KiB, so that all of it comes from the heap
        freed.append(torch.ones(100 * 1024, dtype=torch.uint8))
        kept.append(torch.ones(1024, dtype=torch.uint8))
    del freed
    before = resident()
    release_memory()
    assert len(kept) == 2000
    return before - resident()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is free")
def test_holes_between_what_lives_on_are_given_back():
    # In a process of its own: in one that has run for a while, what lives on may go to older holes, and nothing keeps
    # glibc from giving the rest back unasked.
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100 * MIB


if __name__ == "__main__":
    sys.stdout.write(f"{freed_by_release()}\n")

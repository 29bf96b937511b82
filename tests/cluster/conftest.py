"""A lab of hosts, and clusters that `ray up` brings up in it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab, missing
from launching import prepare_aws, prepare_on_prem, up

from benchmarks.common import made_songs

HOSTS = {"laptop": 1, "stranger": 2, "head": 10, "w1": 11, "w2": 12}
INSTANCES = {f"i{last}": last for last in range(4, 10)}
"""At the addresses that the stand-in for EC2 hands out, in their order; the first comes to be the head."""


@pytest.fixture(scope="session")
def _able() -> None:
    """This machine can have a lab, or what needs root is skipped with the reason; where one is required, it fails."""
    if (reason := missing()) is not None:
        (pytest.fail if os.getenv("LAB") == "required" else pytest.skip)(reason)


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, _able: None) -> Iterator[Lab]:
    """All hosts, powered on; those that the module names."""
    lab = Lab(getattr(request.module, "HOSTS", HOSTS))
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def on_prem(lab: Lab) -> Iterator[str]:
    """The cluster of `clusters/on-prem.yaml`, up; its file on the laptop."""
    cluster = prepare_on_prem(lab)
    up(lab["laptop"], cluster)
    yield cluster
    lab["laptop"].run(f"cd ~/music && ray down -y {cluster}")


@pytest.fixture(scope="module")
def music(lab: Lab) -> Path:
    """A piano-roll file on the laptop."""
    return made_songs(lab["laptop"].home / "chords.json", 300, 60)


@pytest.fixture(scope="module")
def aws(lab: Lab) -> Path:
    """`cluster.yaml` in the project on the laptop, with three GPU machines at most."""
    return prepare_aws(lab, 3)

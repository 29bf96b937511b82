"""A lab of hosts, and clusters that `ray up` brings up in it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from lab import ROOT, Lab, missing

from benchmarks.common import made_songs

HOSTS = {"laptop": 1, "stranger": 2, "head": 10, "w1": 11, "w2": 12}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """All hosts, powered on."""
    if (reason := missing()) is not None:
        (pytest.fail if os.getenv("LAB") == "required" else pytest.skip)(reason)
    lab = Lab(HOSTS)
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def on_prem(lab: Lab) -> Iterator[str]:
    """The cluster of `clusters/on-prem.yaml`, up; its file on the laptop.

    What differs: addresses and the account; results in the lab's shared folder; the virtual environment is there, for
    nothing can be installed without a network; object stores are small, and a worker has two cores.
    """
    config = yaml.safe_load((ROOT / "clusters" / "on-prem.yaml").read_text())
    config["provider"] |= {"head_ip": lab["head"].address, "worker_ips": [lab[name].address for name in ("w1", "w2")]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": "~/.ssh/lab.pem"}
    replaced = {"/mnt/shared/music-vae-sweep": str(lab.shared), "~/venv/bin": f"{sys.prefix}/bin"}
    config["setup_commands"] = _replaced(
        [line for line in config["setup_commands"] if "pip install" not in line], replaced
    )
    config["head_start_ray_commands"][-1] += " --object-store-memory=200000000"
    config["worker_start_ray_commands"][-1] += " --object-store-memory=200000000 --num-cpus=2"
    laptop = lab["laptop"]
    (laptop.home / "on-prem.yaml").write_text(yaml.safe_dump(config))
    laptop.run("ray get-auth-token --generate && chmod 600 ~/.ray/auth_token")
    laptop.run(f"cd {ROOT} && ray up -y ~/on-prem.yaml", RAY_UP_enable_autoscaler_v2="0")
    yield "~/on-prem.yaml"
    laptop.run(f"cd {ROOT} && ray down -y ~/on-prem.yaml")


def _replaced(lines: list[str], words: dict[str, str]) -> list[str]:
    for old, new in words.items():
        lines = [line.replace(old, new) for line in lines]
    return lines


@pytest.fixture(scope="module")
def music(lab: Lab) -> Path:
    """A piano-roll file on the laptop."""
    return made_songs(lab["laptop"].home / "chords.json", 300, 60)

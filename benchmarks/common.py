"""What every benchmark shares: where its figures come from, the table it prints, the file it writes."""

import importlib.util
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sweep.versions import ROOT, revision, versions
from vae.files import write_atomically

RESULTS = Path(__file__).parent / "results"
SEEDS_PARAMS = {
    **{"family": "dense", "head": "independent", "transpose": 0, "ema": 0.0, "rate_target": 0.0, "lr_warmup": 0},
    **{"weight_decay": 0.0},
}
"""The seed's VAE: sizes are the defaults, all else is off."""


@dataclass(frozen=True)
class Table:
    """What is printed, and what `benchmarks.tables` puts into the README."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]  # the first cell of each is its name

    def plain(self) -> str:
        """For a terminal."""
        widths = [max(len(cell) for cell in column) for column in zip(self.columns, *self.rows, strict=True)]
        lines = []
        for row in (self.columns, *self.rows):
            first, *others = (cell.ljust if i == 0 else cell.rjust for i, cell in enumerate(row))
            lines.append("  ".join([first(widths[0]), *_padded(others, widths[1:])]))
        return "\n".join(lines)

    def markdown(self) -> str:
        """For the README."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _padded(pads: Sequence[Callable[[int], str]], widths: Sequence[int]) -> list[str]:
    return [pad(width) for pad, width in zip(pads, widths, strict=True)]


def write(name: str, figures: dict[str, Any], table: Table, out: Path | None = None) -> Path:
    """Prints a benchmark's table, and writes its figures and where they come from.

    Args:
        name: of the benchmark, `benchmarks/<name>.py`.
        figures: the keys that others read, medians, and all raw values.
        table: its table.
        out: instead of `benchmarks/results/<name>.json`.

    Returns:
        The file.
    """
    record = {
        **figures,
        "table": asdict(table),
        "machine": machine(),
        "versions": versions(),
        "revision": revision(),
        "command": command(name),
        "date": datetime.now().astimezone().date().isoformat(),
    }
    path = out or RESULTS / f"{name}.json"
    write_atomically(path, (json.dumps(record, indent=2) + "\n").encode())
    print(f"{table.plain()}\nwritten: {path}")
    return path


def recorded(name: str, key: str, out: Path | None = None) -> list[dict[str, Any]]:
    """What a benchmark that is recorded part by part has under a key so far; arguments as of `write`."""
    path = out or RESULTS / f"{name}.json"
    found: list[dict[str, Any]] = json.loads(path.read_text())[key] if path.exists() else []
    return found


def command(name: str) -> str:
    """The command line of this process, as one would type it in the repository; names no place outside of it."""
    words = [os.path.relpath(word) if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["python", "-m", f"benchmarks.{name}", *words])


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, memory, GPUs, system, and whether bytecode was compiled."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "system": f"{platform.system()} {platform.machine()}",
        "bytecode_compiled": Path(importlib.util.cache_from_source(torch.__file__)).exists(),
    }


def made_songs(path: Path, train: int, others: int, steps: int = 8) -> Path:
    """Writes a piano-roll file of songs of chords anywhere on the keyboard: a code has much to say, soon learnt.

    Args:
        path: of the file.
        train: how many songs are to be trained on.
        others: how many there are for validation, and for the test.
        steps: of a song; a chord lasts four.
    """
    random = np.random.default_rng(0)

    def song() -> list[list[int]]:
        roots = random.integers(30, 90, steps // 4).tolist()
        return [[root, root + 4, root + 7] for root in roots for _ in range(4)]

    sizes = {"train": train, "valid": others, "test": others}
    path.write_text(json.dumps({name: [song() for _ in range(size)] for name, size in sizes.items()}))
    return path


def environment() -> dict[str, str]:
    """In which a module of this repository runs in a process of its own; nobody's cluster, bytecode as installed."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.getenv("PYTHONPATH"))))
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPATH": paths, "RAY_ADDRESS": "local"}


def run_module(module: str, words: Sequence[str]) -> None:
    """`python -m module words` in a process of its own, to its end, whatever that is."""
    subprocess.run((sys.executable, "-m", module, *words), env=environment(), check=False)


def _field(path: str, name: str) -> str | None:
    """The first value of a name in a file of `name: value` lines, or None."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _memory_gib() -> float | None:
    kib = _field("/proc/meminfo", "MemTotal")
    return None if kib is None else round(int(kib.split()[0]) / 2**20, 1)

"""THE file format of a checkpoint: a folder of safetensors and JSON, written atomically.

    model.safetensors      the weights of the best epoch so far: what is evaluated and sampled
    config.json            config, data and its fingerprint, split, seed, versions
    metrics.json           metrics of that epoch, on validation, and where they come from
    training.safetensors   the present weights, optimizer moments, random state, data order; to go on training
    training.json          the counters that belong to them

The last two are absent from checkpoints that are final, such as a sweep's `best/`.
"""

import dataclasses
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vae.config import Config
from vae.encoding import DataSpec
from vae.errors import UserError
from vae.files import write_atomically
from vae.models.base import Vae
from vae.models.registry import build_model

MODEL, CONFIG, METRICS = "model.safetensors", "config.json", "metrics.json"
TRAINING, COUNTERS = "training.safetensors", "training.json"
FINAL_FILES = (MODEL, CONFIG, METRICS)
_FILES = (*FINAL_FILES, TRAINING, COUNTERS)


@dataclass(frozen=True)
class Checkpoint:
    """A model read back, ready for evaluation."""

    model: Vae
    config: Config
    spec: DataSpec
    record: dict[str, Any]  # config.json as written; `metrics` holds metrics.json


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    try:
        own = metadata.version("music-vae-sweep")
    except metadata.PackageNotFoundError:  # a checkout on a machine where nothing was installed
        own = "unknown"
    return {
        "music-vae-sweep": own,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def write_files(directory: Path, tensors: dict[str, dict[str, Tensor]], records: dict[str, dict[str, Any]]) -> None:
    """Writes the files of a checkpoint by name into a folder that exists."""
    for name, group in tensors.items():
        try:
            save_file({key: value.contiguous() for key, value in group.items()}, directory / name)
        except safetensors.SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(*((int(number[1]), os.strerror(int(number[1]))) if number else (str(error),))) from None
    for name, record in records.items():
        (directory / name).write_text(json.dumps(record, indent=2) + "\n")


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """A scratch folder that takes the place of `directory` at the end; an error leaves what was there.

    What else was put there, such as samples, stays.
    """
    directory = directory.resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        scratch.chmod(0o755)
        yield scratch
        _replace(scratch, directory)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _replace(scratch: Path, directory: Path) -> None:
    """Puts a finished folder in the place of another; a crash leaves one of the two whole."""
    old = directory.with_name(f".{directory.name}.old")
    try:
        if directory.exists():
            shutil.rmtree(old, ignore_errors=True)  # left by a crash
            directory.rename(old)
        scratch.rename(directory)
    except BaseException:
        if old.exists() and not directory.exists():
            old.rename(directory)
        raise
    for path in old.iterdir() if old.exists() else ():
        if path.name not in _FILES:
            path.rename(directory / path.name)
    shutil.rmtree(old, ignore_errors=True)


def export(source: Path, directory: Path, provenance: dict[str, Any]) -> None:
    """Copies what is needed to evaluate and sample, and adds to its provenance, of which files it is too."""
    metrics = read_json(source / METRICS)
    with replacing(directory) as scratch:
        for name in FINAL_FILES:
            shutil.copy2(source / name, scratch / name)
        metrics["provenance"] |= provenance | {"sha256": _digest(scratch)}
        write_json(scratch / METRICS, metrics)


def is_whole(directory: Path) -> bool:
    """Whether metrics are of the model beside them; where they don't tell, as those of older exports, they are."""
    known = read_json(directory / METRICS).get("provenance", {}).get("sha256")
    return known is None or known == _digest(directory)


def _digest(directory: Path) -> str:
    """SHA-256 (hex) of config and weights."""
    total = hashlib.sha256()
    for name in (CONFIG, MODEL):
        total.update((directory / name).read_bytes())
    return total.hexdigest()


def read_json(path: Path) -> Any:
    """Reads a JSON file of a checkpoint.

    Raises:
        UserError: it is absent or broken.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path.parent}: no checkpoint here ({path.name} is missing).") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: unreadable ({error}); the checkpoint is broken, use another.") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file of a checkpoint.

    Raises:
        UserError: it is absent or broken.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path.parent}: no checkpoint here ({path.name} is missing).") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: unreadable ({error}); the checkpoint is broken, use another.") from None
    return tensors


def load(directory: Path) -> Checkpoint:
    """Reads a checkpoint for evaluation and sampling.

    Raises:
        UserError: it is absent, broken, or of another version of the code.
    """
    record, metrics = read_json(directory / CONFIG), read_json(directory / METRICS)
    try:
        config, spec = Config(**record["config"]), DataSpec(**record["spec"])
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{directory / CONFIG}: not a config of this version ({error}).") from None
    model = build_model(config, spec)
    try:
        model.load_state_dict(read_tensors(directory / MODEL))
    except RuntimeError as error:
        raise UserError(f"{directory / MODEL}: weights do not fit the config: {_line(error)}") from None
    return Checkpoint(model.eval(), config, spec, record | {"metrics": metrics})


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def describe(config: Config, spec: DataSpec) -> dict[str, Any]:
    """Config and data as JSON."""
    return {"config": dataclasses.asdict(config), "spec": dataclasses.asdict(spec)}

"""The checkpoints that Ray Tune writes of trials and of final runs: `session-*/<run>/checkpoint_*/`, wherever."""

import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from ray.tune import Checkpoint
from safetensors import SafetensorError, safe_open

from vae import checkpoint
from vae.store import Store, StoreError, is_remote

_PATIENCE = 600.0
"""Seconds for which the driver waits for a store that can't be reached; then the sweep ends, to be resumed."""
_TENSORS = (checkpoint.MODEL, checkpoint.TRAINING)
_RECORDS = (checkpoint.CONFIG, checkpoint.METRICS)


class Checkpoints:
    """Those of a sweep's trials, or of its final runs; each is known by its place, a path or a URI.

    A run is named by the beginning of its folders' names: it may have been begun several times. What folders there are
    is looked up once; of later ones this is told, for a long sweep has very many.

    Args:
        place: of the folder that all starts of the sweep write to.
    """

    def __init__(self, place: Path | str) -> None:
        self.place = str(place)

    @cached_property
    def _store(self) -> Store:
        return Store(self.place, _PATIENCE)

    @cached_property
    def _hasty(self) -> Store:
        return Store(self.place, 0.0)

    def sessions(self) -> list[str]:
        """The names of the starts of the sweep."""
        return [name for name in self._store.folders() if name.startswith("session-")]

    def require_reachable(self) -> None:
        """Raises an error if the store can't be reached now.

        Raises:
            StoreError: it can't.
        """
        self._hasty.folders()

    @cached_property
    def _folders(self) -> dict[str, list[str]]:
        """Those of each run."""
        found: dict[str, list[str]] = {}
        for session in self.sessions():
            for name in self._store.folders(session):
                found.setdefault(_run_of(name), []).append(f"{session}/{name}")
        return found

    def begins(self, path: str) -> None:
        """Takes note of a folder that Ray Tune begins a run in."""
        session, name = PurePath(path).parts[-2:]
        folders = self._folders.setdefault(_run_of(name), [])
        if f"{session}/{name}" not in folders:
            folders.append(f"{session}/{name}")

    def _of(self, store: Store, *runs: str) -> Iterator[str]:
        """The names of all checkpoints of some runs."""
        for folder in (folder for run in runs for folder in self._folders.get(run, ())):
            found = store.folders(folder)
            yield from (f"{folder}/{name}" for name in found if name.startswith("checkpoint_"))

    def newest(self, run: str) -> str | None:
        """The place of the whole checkpoint of a run with the most epochs, or None; absolute."""
        return self._newest(run)[1]

    def trained(self, run: str) -> int:
        """Epochs in the newest checkpoint of a run; 0 if there is none."""
        return self._newest(run)[0]

    def _newest(self, run: str) -> tuple[int, str | None]:
        places = [self._store.at(name) for name in self._of(self._store, run)]
        return max(((epoch, place) for place in places if (epoch := trained_epochs(place))), default=(0, None))

    def drop(self, *runs: str, keep: str | None = None) -> None:
        """Removes the checkpoints of some runs, but for one; not if a store refuses, for they do no harm.

        Ray's own `num_to_keep` would write a snapshot of all trials.
        """
        try:
            for name in self._of(self._hasty, *runs):
                if self._hasty.at(name) != keep:
                    self._hasty.remove(name)
        except StoreError:
            return

    def place_of(self, saved: Checkpoint) -> str:
        """The place of a checkpoint that Ray Tune tells of."""
        scheme, remote, _ = self.place.partition("://")
        return f"{scheme}://{saved.path}" if remote else str(Path(saved.path).resolve())


def _run_of(folder: str) -> str:
    """What all of its names begin with: `00007-` of `00007-00003`; those of final runs end in a dot."""
    found = re.match(r".*[-.]", folder)
    return found[0] if found else folder


def trained_epochs(place: str) -> int | None:
    """Epochs trained in a checkpoint; None if a crash left it in pieces."""
    try:
        return _remote_epochs(Store(place)) if is_remote(place) else _local_epochs(Path(place))
    except StoreError:
        raise  # it is not known
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _local_epochs(path: Path) -> int:
    for name in _TENSORS:
        with safe_open(path / name, "np"):
            pass
    for name in _RECORDS:
        json.loads((path / name).read_text())
    return int(json.loads((path / checkpoint.COUNTERS).read_text())["epoch"])


def _remote_epochs(store: Store) -> int:
    """Files of an object store are whole, but some may be missing."""
    if not set(store.files()) >= {*_TENSORS, *_RECORDS}:
        raise ValueError("not all of it is there")
    return int(store.read_json(checkpoint.COUNTERS)["epoch"])


def read_metrics(place: str) -> dict[str, Any]:
    """The metrics of a checkpoint's best epoch."""
    if not is_remote(place):
        metrics: dict[str, Any] = checkpoint.read_json(Path(place) / checkpoint.METRICS)
        return metrics
    found = Store(place).read_json(checkpoint.METRICS)
    if found is None:
        raise StoreError(f"{place}: no checkpoint is there any more.")
    return dict(found)

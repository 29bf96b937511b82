"""The folder of a sweep: what is in it, where, and how it is read back."""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sweep.study import Study, TrialRecord
from sweep.versions import versions
from vae import checkpoint
from vae.errors import UserError
from vae.files import write_atomically

BEST_KEYS = ("trial", "params", "epoch", "feasible", "val_elbo", "kl", "code_gain", "active_units")
TEST_KEYS = ("test_elbo", "test_elbo_per_song", "test_kl", "test_iwae", "iwae_samples", "seeds")
TIMES = (
    "epochs_trained",
    "train_seconds",
    "search_seconds",
    "startup_seconds",
    "wall_seconds",
    "train_share",
)
CSV_COLUMNS = ("id", "state", "params", "epochs", "val_elbo", "kl", "seconds", "node")


class SweepFolder:
    """`<results>/<name>/`."""

    def __init__(self, results: Path, name: str) -> None:
        self.results, self.name = results, name
        self.path = results / name
        self.journal = self.path / "study.log"
        self.summary = self.path / "summary.json"
        self.best = self.path / "best"
        self.samples = self.path / "samples"
        self.tensorboard = self.path / "tensorboard"
        self.trials = self.path / "trials"
        self.finals = self.path / "finals"
        self._ended: dict[int, str] = {}  # rows of `trials.csv` that do not change any more

    def create(self) -> None:
        """Makes the folder and points `latest` to it.

        Raises:
            UserError: it can't be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            scratch = self.results / f".latest-{os.getpid()}"
            scratch.symlink_to(self.name)
            scratch.replace(self.results / "latest")
        except OSError as error:
            raise UserError(
                f"{self.results}: results can't be written ({error.strerror}); pass another --results."
            ) from None

    def _checkpoints(self, number: int, final: str | None) -> Iterator[Path]:
        if final is None:
            return self.trials.glob(f"session-*/{number:05d}-*/checkpoint_*")
        return self.finals.glob(f"session-*/{number:05d}-{final}.*/checkpoint_*")  # an attempt after the dot

    def newest_checkpoint(self, number: int, final: str | None = None) -> Path | None:
        """The whole checkpoint of a trial, or of a final run of it, with the most epochs, or None.

        It is absolute, as each trial has its own folder.
        """
        found = [(epoch, path) for path in self._checkpoints(number, final) if (epoch := trained_epochs(path))]
        return max(found)[1].resolve() if found else None

    def drop_checkpoints(self, number: int, final: str | None = None, keep: Path | None = None) -> None:
        """Removes the checkpoints of a trial, or of a final run of it, but for one.

        Ray's own `num_to_keep` would write a snapshot of all trials.
        """
        for path in self._checkpoints(number, final):
            if keep is None or path.resolve() != keep.resolve():
                shutil.rmtree(path, ignore_errors=True)

    def read_summary(self) -> dict[str, Any]:
        """The summary as last written, or an empty dict."""
        try:
            summary: dict[str, Any] = json.loads(self.summary.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return summary

    def write_trials(self, study: Study) -> None:
        """Rewrites `trials.csv`."""
        rows = [self._ended.get(number) or self._line(study.records[number]) for number in sorted(study.records)]
        write_atomically(self.path / "trials.csv", "".join((_csv(CSV_COLUMNS), *rows)).encode())

    def _line(self, record: TrialRecord) -> str:
        line = _csv(_row(record))
        if record.ended:
            self._ended[record.number] = line
        return line


def trained_epochs(path: Path) -> int | None:
    """Epochs trained in a checkpoint; None if a crash left it in pieces."""
    try:
        for name in (checkpoint.MODEL, checkpoint.TRAINING):
            with safe_open(path / name, "np"):
                pass
        json.loads((path / checkpoint.METRICS).read_text())
        return int(json.loads((path / checkpoint.COUNTERS).read_text())["epoch"])
    except (OSError, ValueError, KeyError, SafetensorError):
        return None


def _csv(row: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()


def _row(record: TrialRecord) -> tuple[Any, ...]:
    last = record.last
    return (
        record.number,
        record.state,
        json.dumps(record.params),
        record.epoch,
        last.get("val_elbo", ""),
        last.get("kl", ""),
        round(record.train_seconds, 3),
        record.node,
    )


def summarise(study: Study, further: dict[str, Any], best: dict[str, Any] | None) -> dict[str, Any]:
    """The summary of a sweep so far, every key present.

    Args:
        study: the trials.
        further: values of further keys that are known, by name.
        best: what is known of the winner, by the names of `BEST_KEYS` and `TEST_KEYS`.
    """
    known = {
        "name": study.settings.name,
        "data": study.settings.data,
        "encoding": study.settings.spec.encoding,
        "seed": study.settings.seed,
        "versions": versions(),
        "trials": {"requested": study.requested, **study.counts()},
        "best": dict.fromkeys((*BEST_KEYS, *TEST_KEYS)) | (best or {}),
        "baseline": dict.fromkeys(("marginal_elbo", "marginal_test_elbo")),
        "samples": None,
        **dict.fromkeys(TIMES),
        "epochs_trained": sum(record.epoch for record in study.records.values()),
        "train_seconds": sum(record.train_seconds for record in study.records.values()),
    }
    return known | further

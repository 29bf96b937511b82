"""The folder of a sweep: what is in it, where, and how it is read back."""

import csv
import fcntl
import io
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweep.checkpoints import Checkpoints
from sweep.record import TrialRecord
from sweep.study import Study
from sweep.versions import versions
from vae.errors import UserError
from vae.files import is_locked, write_atomically
from vae.store import DATA, JOURNAL, LATEST, LOCK, Store, copy_of, is_remote, pointed_elsewhere

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
    """`<results>/<name>/`: on this machine, or in an object store, of which there is a copy on this machine.

    Args:
        results: a path or a URI.
        name: of the sweep.
    """

    def __init__(self, results: Path | str, name: str) -> None:
        self.place, self.name = str(results).rstrip("/"), name
        self.results = copy_of(self.place)
        self.path = self.results / name
        self.journal = self.path / JOURNAL
        self.summary = self.path / "summary.json"
        self.best = self.path / "best"
        self.samples = self.path / "samples"
        self.tensorboard = self.path / "tensorboard"
        self.data = self.path / DATA
        home = f"{self.place}/{name}" if is_remote(self.place) else str(self.path.absolute())
        self.trials = Checkpoints(f"{home}/trials")
        self.finals = Checkpoints(f"{home}/finals")
        self._ended: dict[int, str] = {}  # rows of `trials.csv` that do not change any more

    @property
    def again(self) -> str:
        """The options that go on with it."""
        return f"--resume {shlex.quote(self.name)} --results {shlex.quote(self.place)}"

    def create(self) -> None:
        """Makes the folder.

        Raises:
            UserError: it can't be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.results}: results can't be written ({error.strerror}); pass another --results."
            ) from None

    def make_latest(self) -> None:
        """Points `latest` to it, in an object store too.

        Raises:
            UserError: the store can't be written.
        """
        if is_remote(self.place):
            Store(self.place, patience=0.0).write(LATEST, self.name.encode())
        scratch = self.results / f".latest-{os.getpid()}"
        scratch.symlink_to(self.name)
        scratch.replace(self.results / LATEST)

    @contextmanager
    def driven(self) -> Iterator[None]:
        """Keeps other drivers on this machine from the sweep; the system lets go of it when this process ends.

        Raises:
            UserError: one runs it.
        """
        try:
            file = (self.path / LOCK).open("w")
        except PermissionError:
            raise UserError(f"{self.path}: belongs to another account, and can't be written.") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{self.path}: this sweep runs already; wait for its end, or stop it first.") from None
            except OSError as error:
                reason = f"its file system has no locks ({error.strerror})"
                raise UserError(f"{self.path}: {reason}; mount it with them, or pass another --results.") from None
            yield

    def is_driven(self) -> bool:
        """Whether a driver on this machine runs it, or may, for all that can be seen; nothing is written."""
        return is_locked(self.path / LOCK)

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


def chosen(results: str, name: str | None) -> SweepFolder:
    """The folder of the sweep of a name, or of the newest; it may be in an object store that a cluster writes to.

    Raises:
        UserError: no name is given, and there is no sweep.
    """
    name = (name or LATEST).rstrip("/")  # as a shell completes it
    known = None if name == LATEST else name
    if not is_remote(results) and (elsewhere := pointed_elsewhere(Path(results), known)) is not None:
        return SweepFolder(*elsewhere)
    return SweepFolder(results, named(results, name))


def named(results: str, name: str) -> str:
    """The name of a sweep: of `latest` that of the newest.

    Raises:
        UserError: there is no newest.
    """
    if name != LATEST:
        return name
    if is_remote(results):
        newest = (Store(results).read(LATEST) or b"").decode()
    else:
        newest = (Path(results) / LATEST).resolve().name if (Path(results) / LATEST).is_dir() else ""
    if not newest:
        raise UserError(f"{results}: no sweep there; run `python -m sweep.run` first, or pass --results.")
    return newest


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
        "finals": None,
        **dict.fromkeys(TIMES),
        "epochs_trained": study.epochs_trained,
        "train_seconds": study.train_seconds,
    }
    return known | further

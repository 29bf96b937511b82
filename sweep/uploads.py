"""The copy of a sweep's folder in an object store, kept current while the sweep runs.

Trials write their checkpoints to the store themselves; all else is written in a folder of the driver's machine, from
which this copies what has changed. `--resume` fetches it, on whatever machine.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from sweep.journal import is_whole, lock_of, snapshot_of, whole_lines
from sweep.results import SweepFolder
from vae.checkpoint import FINAL_FILES, METRICS
from vae.errors import UserError
from vae.files import write_atomically
from vae.store import Store, is_remote

_SECONDS = 5.0
"""Between copies, at least."""
_LONGEST_PAUSE = 60.0
"""Between tries to reach a store that refuses."""
_PATIENCE, _BRIEFLY = 600.0, 30.0
"""Seconds for which the end of a sweep waits for a store that refuses."""


class Uploads:
    """Copies in the background; all that is there once more at the end, for which it waits.

    Args:
        folder: of the sweep; nothing happens unless it is in an object store.
        tell: says what a user should know, in a line.

    Raises:
        UserError: at the end: the store still can't be written.
    """

    def __init__(self, folder: SweepFolder, tell: Callable[[str], None]) -> None:
        self._folder, self._tell = folder, tell
        self._there: dict[str, tuple[int, int]] = {}  # marks of what has been copied, by name
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
        self._store: Store | None = None
        self._refused = False

    def __enter__(self) -> Self:
        """Begins."""
        if is_remote(self._folder.place):
            self._store = Store(self._folder.place, patience=0.0)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Copies the rest."""
        if self._store is None:
            return
        self._over.set()
        self._thread.join()
        failed = isinstance(error, UserError)
        deadline = time.monotonic() + (_BRIEFLY if failed else _PATIENCE)
        while (refusal := self._try(self._store)) is not None:
            if time.monotonic() > deadline and failed:
                return  # for what went wrong before, which the user should be told
            if time.monotonic() > deadline:
                raise UserError(f"{refusal} The results are in {self._folder.path}.")
            time.sleep(_SECONDS)

    def _run(self) -> None:
        assert self._store is not None
        pause = _SECONDS
        while not self._over.wait(pause):
            pause = _SECONDS if self._try(self._store) is None else min(2.0 * pause, _LONGEST_PAUSE)

    def _try(self, store: Store) -> UserError | None:
        """Copies what has changed; says when the store begins to refuse, and when it no longer does."""
        try:
            self._copy(store)
        except (UserError, OSError) as error:
            if not self._refused:
                self._tell(f"results wait in {self._folder.path}: {error}")
            self._refused = True
            return error if isinstance(error, UserError) else UserError(str(error))
        if self._refused:
            self._tell(f"results are in {store.place} again")
        self._refused = False
        return None

    def _copy(self, store: Store) -> None:
        for name, path in self._files():
            try:
                marks = _marks(path)
                if self._there.get(name) == marks:
                    continue
                data = whole_lines(path) if path == self._folder.journal else path.read_bytes()
                if path == self._folder.best / METRICS and not self._has_rest_of_best():
                    continue
            except FileNotFoundError:  # replaced in this moment
                continue
            store.write(name, data)
            self._there[name] = marks
        # A driver that waits for the store itself writes nothing new: it is to be told of all the same.
        store.modified(f"{self._folder.name}/{self._folder.journal.name}")

    def _has_rest_of_best(self) -> bool:
        """Whether what was copied of the best is what is there now: it may have been replaced in between."""
        rest = (self._folder.best / name for name in FINAL_FILES if name != METRICS)
        return all(self._there.get(self._name(path)) == _marks(path) for path in rest)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder.results).as_posix()

    def _files(self) -> list[tuple[str, Path]]:
        """What the sweep has written, but for scratch files and the journal's lock and snapshot.

        Last come the best, its metrics after all else of it, for by them a reader knows that it is whole, and the
        journal, which tells of all.
        """
        found: list[Path] = []
        for top, inner, names in os.walk(self._folder.path):
            inner[:] = [name for name in inner if not name.startswith(".")]
            found += [Path(top, name) for name in names if not name.startswith(".")]
        best, journal = self._folder.best, self._folder.journal
        kept = [path for path in found if path not in (lock_of(journal), snapshot_of(journal))]
        kept.sort(key=lambda path: (path == journal, path == best / METRICS, path.parent == best))
        return [(self._name(path), path) for path in kept]


def _marks(path: Path) -> tuple[int, int]:
    """What a file is known by: its modification time and size."""
    state = path.stat()
    return state.st_mtime_ns, state.st_size


def fetch(folder: SweepFolder, *names: str) -> None:
    """Brings a sweep's files from its object store, if it is in one, but for trials' checkpoints.

    Args:
        folder: of the sweep.
        names: of the files beside the journal that are wanted; all if there are none.

    What this machine knows that the store does not yet have stays, and so does all while a sweep runs from here.

    Raises:
        UserError: the store can't be reached.
    """
    if not is_remote(folder.place) or folder.is_driven():
        return
    store = Store(folder.place)
    journal = store.read(f"{folder.name}/{folder.journal.name}")
    here = folder.journal.read_bytes() if folder.journal.exists() else b""
    if journal is None or (len(here) > len(journal) and here.startswith(journal)):
        return
    if here and not is_whole(journal):  # a damaged one was copied there; `mend` says how to go back
        return
    for name in [f"{folder.name}/{name}" for name in names] or _but_checkpoints(store, folder):
        if (data := store.read(name)) is not None:
            write_atomically(folder.results / name, data)
    snapshot_of(folder.journal).unlink(missing_ok=True)  # of what this machine knew
    write_atomically(folder.journal, journal)  # last: where it is, all is


def _but_checkpoints(store: Store, folder: SweepFolder) -> Iterator[str]:
    for name in store.files(folder.name):
        part = name.removeprefix(f"{folder.name}/").partition("/")[0]
        if part not in ("trials", "finals", folder.journal.name):
            yield name

"""The study's file: one record a line, appended as things happen; made whole after a crash, or refused.

A crash may tear the last line, and Optuna would then append to the torn one, which makes the file unreadable. Worse
damage, such as a full disk or a copy cut short, is told by the snapshot beside the file, which is never behind by much.
"""

import json
import math
import time
from pathlib import Path
from shlex import quote
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import LOCK_FILE_SUFFIX

from vae.errors import UserError
from vae.files import write_atomically

_SNAPSHOT_SECONDS = 30.0
_SNAPSHOT_GROWTH = 1.5
"""By which a journal may grow meanwhile: less than twofold, so that half of it always lacks what its snapshot has."""


def open_storage(path: Path) -> JournalStorage:
    """Where Optuna reads and writes a journal, from now on without telling each step."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Absolute: Optuna's lock is a link to it; a relative one would lead nowhere, and be waited for for ever.
    return JournalStorage(JournalFileBackend(str(path.absolute())))


def lock_of(path: Path) -> Path:
    """What is there while Optuna writes to a journal."""
    return path.with_name(path.name + LOCK_FILE_SUFFIX)


def snapshot_of(path: Path) -> Path:
    """Where a journal's last snapshot lies."""
    return path.with_name(f"{path.name}.snapshot")


def whole_lines(path: Path) -> bytes:
    """A journal as it is now, without a last line that is still being written."""
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]


class Snapshots:
    """Copies a journal now and then, and whenever it has grown by half.

    Args:
        path: of the journal.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._taken_at, self._size = -math.inf, 0

    def take(self, at_once: bool = False) -> None:
        """Copies the journal, if the last copy is old, or far behind."""
        now = time.monotonic()
        far_behind = self._path.stat().st_size > _SNAPSHOT_GROWTH * self._size
        if at_once or far_behind or now - self._taken_at > _SNAPSHOT_SECONDS:
            content = whole_lines(self._path)
            write_atomically(snapshot_of(self._path), content)
            self._taken_at, self._size = now, len(content)


def mend(path: Path) -> None:
    """Takes off a last line that a crash tore.

    Raises:
        UserError: more is wrong with the journal, or records are missing that the snapshot has.
    """
    content = path.read_bytes()
    records, whole = _read(content)
    snapshot = snapshot_of(path)
    kept = snapshot.read_bytes() if snapshot.exists() else b""
    torn = b"\n" not in content[whole:]
    if not torn or len(kept) > whole:
        way_out = (
            f"`cp {quote(str(snapshot))} {quote(str(path))}` goes back to the last snapshot, then --resume again."
            if kept
            else ("there is no snapshot yet; start a new sweep.")
        )
        raise UserError(f"{path}: damaged after record {len(records)}{_about(records)}; {way_out}")
    if whole < len(content):
        write_atomically(path, content[:whole])


def is_whole(content: bytes) -> bool:
    """Whether a journal has records alone."""
    return _read(content)[1] == len(content)


def _read(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """The records before the first that is none, and the bytes they take."""
    records: list[dict[str, Any]] = []
    whole = 0
    for line in content.splitlines(keepends=True):
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(record, dict):
            break
        records.append(record)
        whole += len(line)
    return records, whole


def _about(records: list[dict[str, Any]]) -> str:
    """Which trial the last record is about; its id counts those of other studies in the journal too."""
    studies: list[int] = []
    last: int | None = None
    for record in records:
        if record.keys() >= {"study_id", "datetime_start"}:
            last = len(studies)
            studies.append(record["study_id"])
        last = record.get("trial_id", last)
    return "" if last is None else f", of trial {studies[:last].count(studies[last])}"

"""Folders here and in object stores (s3://, gs://) alike, through PyArrow's file systems.

What reads or writes files one by one does so in a folder of this machine: of a sweep in an object store there is a copy
in the cache, see `copy_of`. PyArrow is imported where a store is opened: training and sampling from a folder need none.
"""

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from vae.errors import UserError
from vae.files import cache_folder, write_atomically

T = TypeVar("T")
_LONGEST_PAUSE = 10.0
LATEST = "latest"
"""Names the newest sweep: a link in a folder, in an object store a file that holds the name."""
LOCK = ".lock"
"""In a sweep's folder: its driver holds it."""
DATA = "data.npz"
"""What a sweep keeps its data in, encoded, where they may not be found again."""
JOURNAL = "study.log"
"""In the folder of every sweep that has begun, but not where only its pieces were written, for it is elsewhere."""


def is_remote(place: Path | str) -> bool:
    """Whether a place is in an object store."""
    return re.match(r"\w+://", str(place)) is not None


def copy_of(place: str) -> Path:
    """The folder in the cache that stands in for a place in an object store; another place is its own."""
    if not is_remote(place):
        return Path(place)
    words = re.sub(r"\W+", "-", place.rstrip("/"))
    return cache_folder() / "results" / f"{words}-{hashlib.sha256(place.rstrip('/').encode()).hexdigest()[:8]}"


def point_elsewhere(results: Path, place: str, name: str) -> None:
    """Has a folder of sweeps name one that is in an object store as its newest."""
    write_atomically(results / LATEST, f"{place}/{name}".encode())


def pointed_elsewhere(results: Path, name: str | None = None, asked: str = JOURNAL) -> tuple[str, str] | None:
    """Where a sweep is that is not in the folder: where `point_elsewhere` said that the newest is, and its name.

    Args:
        results: the folder.
        name: of the sweep; None: the newest.
        asked: a file of the sweep that is wanted, which part of a sweep that was copied here may have.

    Returns:
        None if it is in the folder, or no other place is known.
    """
    if not (results / LATEST).is_file():
        return None
    if name is not None and any((results / name / file).exists() for file in (JOURNAL, asked)):
        return None
    place, _, newest = (results / LATEST).read_text().rpartition("/")
    return place, name or newest


def _own_retries(place: str) -> str:
    """What limits those of Google's client, which goes on for 15 minutes by itself, and says nothing."""
    return f"?retry_limit_seconds={_LONGEST_PAUSE:g}" if place.startswith(("gs://", "gcs://")) else ""


class StoreError(UserError):
    """A place that cannot be reached, or does not take what is written: nothing that the content is to blame for."""


class Store:
    """A folder, wherever it is; names within it have slashes.

    Args:
        place: a path, or a URI such as s3://bucket/results. Credentials are those of the environment.
        patience: seconds for which an object store that can't be reached is tried again.

    Raises:
        StoreError: no such place can be, or it cannot be reached; so do all methods.
    """

    def __init__(self, place: Path | str, patience: float = 60.0) -> None:
        from pyarrow import fs

        self._selector, self._is_file = fs.FileSelector, fs.FileType.File
        self._patience = patience if is_remote(place) else 0.0
        self.place = str(place).rstrip("/") if is_remote(place) else str(Path(place).resolve())
        self._fs: Any
        self._path: str
        if is_remote(place):
            self._fs, self._path = self._do(lambda: fs.FileSystem.from_uri(self.place + _own_retries(self.place)))
        else:
            self._fs, self._path = fs.LocalFileSystem(), self.place

    def _do(self, action: Callable[[], T]) -> T:
        """What an action gives; tried again where that may help."""
        deadline, pause = time.monotonic() + self._patience, 1.0
        while True:
            try:
                return action()
            except FileNotFoundError:
                raise
            except (OSError, ValueError) as error:
                if _known(error) or time.monotonic() + pause > deadline:
                    raise StoreError(f"{self.place}: {reason(error)}") from None
            time.sleep(pause)
            pause = min(2.0 * pause, _LONGEST_PAUSE)

    def at(self, name: str) -> str:
        """The place of a file or folder within."""
        return f"{self.place}/{name}"

    def files(self, name: str = "") -> list[str]:
        """All files in a folder within and the folders in it; none if it is absent."""
        return [found.path[len(self._path) + 1 :] for found in self._list(name, True) if found.type == self._is_file]

    def folders(self, name: str = "") -> list[str]:
        """The names of folders in a folder within, sorted; none if it is absent."""
        return sorted(found.base_name for found in self._list(name, False) if found.type != self._is_file)

    def _list(self, name: str, recursive: bool) -> list[Any]:
        where = self._selector(self._at(name), allow_not_found=True, recursive=recursive)
        return self._do(lambda: list(self._fs.get_file_info(where)))

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}".rstrip("/")

    def read(self, name: str) -> bytes | None:
        """A file; None if it is absent."""

        def read() -> bytes:
            while True:
                with self._fs.open_input_stream(self._at(name)) as stream:
                    data = bytes(stream.read())
                if len(data) == self._fs.get_file_info(self._at(name)).size:
                    return data  # else it was replaced in between, and cut at its former length

        try:
            return self._do(read)
        except FileNotFoundError:
            return None

    def read_json(self, name: str) -> Any:
        """A JSON file; None if it is absent or broken."""
        try:
            return json.loads(self.read(name) or b"")
        except ValueError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Writes a file, which appears whole in an object store; folders are made."""

        def write() -> None:
            if not is_remote(self.place):
                Path(self._at(name)).parent.mkdir(parents=True, exist_ok=True)
            with self._fs.open_output_stream(self._at(name)) as stream:
                stream.write(data)

        self._do(write)

    def modified(self, name: str) -> float:
        """When a file was written, in seconds since 1970; 0 if it is absent."""
        info = self._do(lambda: self._fs.get_file_info(self._at(name)))
        return float(info.mtime_ns or 0) / 1e9

    def remove(self, name: str) -> None:
        """Removes a folder within, if it is there."""
        try:
            self._do(lambda: self._fs.delete_dir(self._at(name)))
        except FileNotFoundError:
            return

    def fetch(self, name: str, folder: Path) -> None:
        """Copies a file, or all files of a folder, into a folder of this machine, under their names."""
        for file in self.files(name) or [name]:
            data = self.read(file)
            if data is not None:
                write_atomically(folder / file, data)


@contextmanager
def fetched(place: str) -> Iterator[Path]:
    """A folder of this machine that holds the files of a place, as long as it is needed.

    Raises:
        UserError: the place cannot be reached.
    """
    if not is_remote(place):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory() as scratch:
        Store(place).fetch("", Path(scratch))
        yield Path(scratch)


def reason(error: Exception) -> str:
    """What an error of a file system says, in a line that tells the way out where one is known."""
    text = " ".join(str(error).split())
    if known := _known(error):
        return known
    if isinstance(error, OSError) and error.errno is not None:
        return f"{os.strerror(error.errno)} ({text:.200})"
    return f"cannot be reached ({text:.200})"


def _known(error: Exception) -> str | None:
    """What is to be done about an error that would come again."""
    return next((told for word, told in _REASONS.items() if word in str(error)), None)


_REASONS = {
    "Missing bucket name": "names no bucket; pass s3://BUCKET/...",
    "NO_SUCH_BUCKET": "no such bucket; make it, or pass another --results.",
    "The specified bucket does not exist": "no such bucket; make it, or pass another --results.",
    "INVALID_ACCESS_KEY_ID": "the access key is not known there; check your credentials.",
    "InvalidClientTokenId": "the access key is not known there; check your credentials.",
    "Unable to locate credentials": "no credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    "EXPIRED_TOKEN": "the credentials have expired; renew them.",
    "ExpiredToken": "the credentials have expired; renew them.",
    "ACCESS_DENIED": "access is denied; check your credentials and their rights to the bucket.",
    "No AWS credentials": "no credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    "OAuth2 access token": "no credentials; gcloud auth application-default login.",
    "Unrecognized filesystem type": "no such kind of place; pass a folder, s3://BUCKET/... or gs://BUCKET/...",
}

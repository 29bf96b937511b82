"""Files written whole or not at all, and their names."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def cache_folder() -> Path:
    """Where this project keeps what can be made again: `$XDG_CACHE_HOME/music-vae-sweep`."""
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # no home: containers may run as a user whom they do not know
        caches = Path(tempfile.gettempdir())
    return caches / "music-vae-sweep"


def printable(text: object) -> str:
    """Text with names of files in it, as it can be printed and drawn: `?` in place of bytes that are not UTF-8."""
    return str(text).encode(errors="replace").decode()


def is_locked(path: Path) -> bool:
    """Whether a process on this machine holds a lock on a file, or may, for all that can be seen."""
    try:
        file = path.open()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@contextlib.contextmanager
def nowhere(descriptor: int) -> Iterator[None]:
    """Leads a descriptor of this process, such as 0 for what is typed, to nowhere meanwhile; if it leads anywhere."""
    try:
        kept = os.dup(descriptor)
    except OSError:
        yield
        return
    with Path(os.devnull).open("r+") as null:
        os.dup2(null.fileno(), descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file by way of a scratch file beside it, so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(scratch).chmod(0o644)  # mkstemp makes it readable by its owner alone
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise

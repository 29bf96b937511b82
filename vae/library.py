"""Files of music: found, identified by what they hold, read in parallel."""

import hashlib
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from vae.encoding import Song
from vae.errors import UserError
from vae.midi import UnreadableFile, read_midi
from vae.scores import read_score

MIDI_SUFFIXES = (".mid", ".midi")
MUSIC_SUFFIXES = (*MIDI_SUFFIXES, ".xml", ".musicxml", ".mxl", ".abc")
SCORES_A_PROCESS = 8  # that make up for the second in which a process imports music21
NAMED = 10  # skipped files that a report names; it counts the others


def music_files(top: Path) -> list[Path]:
    """All files of music in a folder and the folders in it, sorted; a file of music is a folder of one.

    Raises:
        UserError: there are none.
    """
    if top.is_file():
        return [top]
    found: list[Path] = []
    entered = set()
    for folder, inner, names in os.walk(top, followlinks=True):
        real = Path(folder).resolve()
        if real in entered:  # by a link; it may be one to a folder above
            inner.clear()
            continue
        entered.add(real)
        found += [Path(folder, name) for name in names if Path(name).suffix.lower() in MUSIC_SUFFIXES]
    if not found:
        raise UserError(f"{top}: no music files ({' '.join(MUSIC_SUFFIXES)}) in it. Pass a folder with some.")
    return sorted(found)


def content_digest(paths: list[Path]) -> str:
    """SHA-256 of what the files hold, whatever their names and places."""
    return hashlib.sha256(b"".join(sorted(map(_file_digest, paths)))).hexdigest()


def _file_digest(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError:
        data = b""  # reading will tell why
    return hashlib.sha256(path.suffix.lower().encode() + b"\0" + data).digest()


def read_files(paths: list[Path], steps_per_beat: int, title: str) -> tuple[list[Song], list[str]]:
    """Reads files of music, in as many processes as there are cores, with a bar on a terminal.

    Returns:
        The songs, in the order of the files, and a line for each file that cannot be read.
    """
    from rich.console import Console
    from rich.progress import track

    results = track(
        _results(paths, steps_per_beat),
        title,
        len(paths),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    songs: list[Song] = []
    skipped: list[str] = []
    for result in results:
        if isinstance(result, str):
            skipped.append(result)
        else:
            songs += result
    return songs, skipped


def skipped_line(skipped: list[str]) -> str:
    """The files that cannot be read, in one line."""
    others = f"; and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
    return f"skipped {len(skipped)} files: {'; '.join(skipped[:NAMED])}{others}"


def _results(paths: list[Path], steps_per_beat: int) -> Iterator[list[Song] | str]:
    read = partial(_read_file, steps_per_beat=steps_per_beat)
    scores = sum(path.suffix.lower() not in MIDI_SUFFIXES for path in paths)
    processes = min(os.cpu_count() or 1, scores // SCORES_A_PROCESS)
    done = 0
    if processes > 1 and not multiprocessing.current_process().daemon:  # a daemon may have no children
        try:
            # Spawned, for a fork of a process with threads (Ray's, torch's) can hang.
            with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
                for result in pool.map(read, paths, chunksize=SCORES_A_PROCESS):
                    yield result
                    done += 1
        except (BrokenProcessPool, OSError):
            pass  # no processes to be had here; the rest is read in this one
    yield from map(read, paths[done:])


def _read_file(path: Path, steps_per_beat: int) -> list[Song] | str:
    """The songs of a file, or why there are none."""
    reader = read_midi if path.suffix.lower() in MIDI_SUFFIXES else read_score
    try:
        return reader(path, steps_per_beat)
    except UnreadableFile as error:
        return error.reason

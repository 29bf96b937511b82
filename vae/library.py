"""Files of music: found, identified by what they hold, read in parallel."""

import hashlib
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np

from vae.arrays import Table
from vae.encoding import HIGHEST_PITCH, LOWEST_PITCH, Song, encode
from vae.errors import UserError
from vae.grid import UnreadableFileError
from vae.midi import read_midi
from vae.scores import read_score
from vae.splitting import SPLITS, deal, tunes

MIDI_SUFFIXES = (".mid", ".midi")
MUSIC_SUFFIXES = (*MIDI_SUFFIXES, ".xml", ".musicxml", ".mxl", ".abc")
SCORES_A_PROCESS = 8  # that make up for the second in which a process imports music21
MIDI_FILES_A_PROCESS = 2000  # that make up for its start: each takes about a millisecond
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
    for folder, inner, names in os.walk(top, onerror=_refuse, followlinks=True):
        real = Path(folder).resolve()
        if real in entered:  # by a link; it may be one to a folder above
            inner.clear()
            continue
        entered.add(real)
        found += [Path(folder, name) for name in names if Path(name).suffix.lower() in MUSIC_SUFFIXES]
    if not found:
        raise UserError(f"{top}: no music files ({' '.join(MUSIC_SUFFIXES)}) in it. Pass a folder with some.")
    return sorted(found)


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename}: cannot be opened: {error.strerror}. Mend its permissions, or move it away.")


def content_digest(paths: list[Path]) -> str:
    """SHA-256 of what the files hold, whatever their names and places."""
    return hashlib.sha256(b"".join(sorted(map(_file_digest, paths)))).hexdigest()


def _file_digest(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError:
        data = b""  # reading will tell why
    return hashlib.sha256(path.suffix.lower().encode() + b"\0" + data).digest()


def read_files(
    paths: list[Path], steps_per_beat: int, title: str, voices: bool = False
) -> tuple[list[Song], list[str], list[str]]:
    """Reads files of music, if many in as many processes as there are cores, with a bar on a terminal.

    Returns:
        The songs, in the order of the files; why files cannot be read, and why songs of files that hold others.
    """
    from rich.console import Console
    from rich.progress import track

    distinct = list(dict.fromkeys(paths))  # the list of chorales has some twice
    results = track(
        _results(distinct, partial(_read_file, steps_per_beat=steps_per_beat, voices=voices)),
        title,
        len(distinct),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    read = dict(zip(distinct, results, strict=True))
    skipped = [result for result in read.values() if isinstance(result, str)]
    missed = [song for songs in read.values() if isinstance(songs, list) for song in songs if isinstance(song, str)]
    return [song for path in paths for song in read[path] if isinstance(song, Song)], skipped, missed


def skipped_line(skipped: list[str], what: str = "files") -> str:
    """What cannot be read, in one line."""
    others = f"; and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
    return f"skipped {len(skipped)} {what}: {'; '.join(skipped[:NAMED])}{others}"


_Read = list[Song | str] | str
"""The songs of a file, in place of some why they cannot be read; or why the whole file cannot."""


def _results(paths: list[Path], read: Callable[[Path], _Read]) -> Iterator[_Read]:
    midi = sum(path.suffix.lower() in MIDI_SUFFIXES for path in paths)
    worth = midi / MIDI_FILES_A_PROCESS + (len(paths) - midi) / SCORES_A_PROCESS
    processes = min(os.cpu_count() or 1, int(worth))
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


def read_file(path: Path, steps_per_beat: int, voices: bool = False) -> list[Song | str]:
    """The songs of a file of music; in place of one that can't be read, which it is and why.

    Raises:
        UnreadableFileError: it has none.
    """
    if path.suffix.lower() in MIDI_SUFFIXES:
        return read_midi(path, steps_per_beat)
    return read_score(path, steps_per_beat, voices)


def _read_file(path: Path, steps_per_beat: int, voices: bool) -> _Read:
    try:
        return read_file(path, steps_per_beat, voices)
    except UnreadableFileError as error:
        return error.reason


def table_of_songs(place: str, found: str, songs: list[Song], encoding: str, steps_per_beat: int) -> Table:
    """Songs encoded and split by tune, in an order that neither names nor places of files change.

    Args:
        place: where they come from, for errors.
        found: what was listed there, for the report.
        songs: some may be the same; they are taken once.
        encoding: `roll` or `roll_onset`.
        steps_per_beat: the grid of the songs.

    Raises:
        UserError: they are too few to split.
    """
    ordered = sorted(songs, key=lambda song: (song.notes.tobytes(), song.tempo, song.steps_per_bar or 0))
    unique = list({song.notes.tobytes(): song for song in ordered}.values())
    names = tunes(unique, steps_per_beat)
    sizes = Counter(names)
    if len(sizes) < len(SPLITS):
        rule = "train, valid and test need a tune each"
        raise UserError(f"{place}: {rule}; found {len(unique)} songs of {len(sizes)} tunes. Pass more music.")
    values = np.concatenate([encode(song, encoding) for song in unique])
    lengths = np.array([song.steps for song in unique], np.int64)
    report = [
        f"{found}, {len(unique)} songs ({len(songs) - len(unique)} duplicates dropped), "
        f"{sum(len(song.notes) for song in unique):,} notes, {len(values):,} steps of 1/{steps_per_beat} beat",
        f"{len(sizes)} tunes, {sum(size > 1 for size in sizes.values())} of them in several songs",
    ]
    if outside := sum(song.out_of_range for song in unique):
        report.append(f"{outside:,} notes outside pitch {LOWEST_PITCH}..{HIGHEST_PITCH} left out")
    bar, beat_type, line = _common_bar(unique)
    report += [line] if line else []
    return Table(
        encoding,
        values,
        lengths=lengths,
        sides=deal(names, lengths),
        tempo=float(np.median([song.tempo for song in unique])),
        steps_per_bar=bar,
        beat_type=beat_type,
        report=tuple(report),
    )


def _common_bar(songs: list[Song]) -> tuple[int | None, int, str]:
    """Steps a bar, the metre's denominator, and a line on them where songs differ.

    The commonest of those that state one, if half of all do: who states none may well be in it too.
    """
    bars = Counter(song.steps_per_bar for song in songs)
    silent = bars.pop(None, 0)
    bar = None if silent > len(songs) / 2 else bars.most_common(1)[0][0]
    beat_type = Counter(song.beat_type for song in songs if song.steps_per_bar == bar).most_common(1)[0][0]
    if len(bars) + bool(silent) < 2:
        return bar, beat_type, ""
    votes = [f"{steps} in {count}" for steps, count in bars.most_common()]
    found = ", ".join(votes + ([f"unknown in {silent}"] if silent else []))
    return bar, beat_type, f"steps a bar: {found} songs; taken: {bar or 'none'}, --steps-per-bar says else"

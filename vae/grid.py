"""Notes in beats -> songs on a grid of steps: what all readers of music share.

Starts and ends are rounded to the nearest step; a note shorter than half a step keeps one step. A note of no length
at all is an artefact of editors and is dropped, and so is a pitch that is no key of a piano.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vae.encoding import DEFAULT_TEMPO, HIGHEST_PITCH, LOWEST_PITCH, Song, normalise
from vae.errors import UserError
from vae.files import printable

NO_PITCHES = f"no notes between pitch {LOWEST_PITCH} and {HIGHEST_PITCH} (piano range)"
Metre = tuple[int, int]
"""Numerator and denominator."""
SLOWEST, FASTEST = 10.0, 1000.0  # outside, a tempo is a slip (symusic gives infinity for a tempo of 0)
MAX_STEPS = 100_000
"""More is a broken file: 100,000 sixteenths are 3.5 hours at 120 beats a minute."""


class UnreadableFileError(UserError):
    """A file of music that gives no song; `reason` is short enough for a list of them."""

    def __init__(self, path: Path, reason: str, way_out: str = "Pass a folder with pitched music.") -> None:
        super().__init__(f"{path}: {reason}. {way_out}")
        self._reason = reason
        self.reason = self.reason_of(path.name)

    def reason_of(self, name: str) -> str:
        """The reason, of a song of the file."""
        return f"{name} ({self._reason})"


@contextmanager
def parsing(path: Path, what: str) -> Iterator[None]:
    """Tells of any error as of an unreadable file: a broken one surfaces as almost any error of its parser.

    Args:
        path: the file.
        what: is wrong with it, such as "not MIDI".
    """
    try:
        yield
    except UnreadableFileError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:80]
        raise UnreadableFileError(path, f"{what}: {type(error).__name__} {reason}") from error


def songs_of(
    path: Path, what: str, read: Callable[[str, Any], Song], pieces: Iterable[tuple[str, Any]]
) -> list[Song | str]:
    """The songs of a file that may hold several; in place of one that can't be read, which it is and why.

    Args:
        path: the file.
        what: see `parsing`.
        read: makes a song of a piece.
        pieces: of the file, their names and contents.

    Raises:
        UnreadableFileError: none can be read.
    """
    found: list[Song | str] = []
    errors = []
    for name, content in pieces:
        try:
            with parsing(path, what):
                found.append(read(name, content))
        except UnreadableFileError as error:
            errors.append(error)
            found.append(error.reason_of(name))
    if errors and len(errors) == len(found):
        raise errors[0]
    return found


def song_of(
    path: Path,
    name: str,
    table: npt.NDArray[np.float64],
    steps_per_beat: int,
    tempo: float,
    metre: Metre | None,
    bar_line: float = 0,
) -> Song:
    """Puts notes on the grid, so that bars begin at multiples of their length; silent bars before them are left out.

    Where the metre is unknown, or its bar is no whole number of steps, beats take the place of bars.

    Args:
        path: the file they came from, for errors.
        name: of the song.
        table: [notes, 3], pitch, start and end in beats.
        steps_per_beat: the grid.
        tempo: beats a minute.
        metre: the commonest, if known.
        bar_line: where a bar of this metre begins, in beats.
    """
    heard = table[table[:, 2] > table[:, 1]]
    keys = heard[(heard[:, 0] >= LOWEST_PITCH) & (heard[:, 0] <= HIGHEST_PITCH)]
    if not len(keys):
        raise UnreadableFileError(path, f"{NO_PITCHES}{_why_none(len(table), len(heard))}")
    if keys[:, 1].min() < 0:
        raise UnreadableFileError(path, "a note starts before the file does", "Its times overflow; export it anew.")
    bar = Fraction(4 * metre[0] * steps_per_beat, metre[1]) if metre is not None else None
    steps_per_bar, beat_type = (int(bar), metre[1]) if metre and bar and bar.denominator == 1 else (None, 4)
    grid = np.floor((keys[:, 1:] - (bar_line if steps_per_bar else 0)) * steps_per_beat + 0.5)
    unit = steps_per_bar or steps_per_beat
    grid -= grid[:, 0].min() // unit * unit
    grid[:, 1] = np.maximum(grid[:, 1], grid[:, 0] + 1)
    if (end := int(grid[:, 1].max())) > MAX_STEPS:
        raise UnreadableFileError(path, f"{end:,} steps long, over {MAX_STEPS:,}", "Cut it into songs.")
    notes = normalise(np.concatenate([keys[:, :1], grid], axis=1))
    return Song(printable(name), notes, end, tempo, steps_per_bar, beat_type, len(heard) - len(keys))


def _why_none(notes: int, heard: int) -> str:
    if not notes:
        return "; it has no notes at all"
    return f"; all {heard} notes lie outside" if heard else f"; all {notes} notes have no length"


def sane_tempo(tempo: float) -> float:
    """A tempo, or `DEFAULT_TEMPO` in place of a broken one."""
    return round(float(tempo), 2) if SLOWEST <= tempo <= FASTEST else DEFAULT_TEMPO


def median_tempo(changes: list[tuple[float, float]], end: float) -> float:
    """The tempo above and below which a song spends half its time each.

    Args:
        changes: (time in beats or ticks, tempo from there on); of several at one time the last counts.
        end: of the song, in the same unit.
    """
    latest = dict(changes)
    starts = np.array(sorted(start for start in latest if start < end) or changes[0][:1], np.float64)
    tempos = np.array([latest[start] for start in starts])
    seconds = np.diff(np.append(starts, max(end, starts[-1] + 1))) / tempos
    order = np.argsort(tempos)
    passed = np.cumsum(seconds[order])
    return float(tempos[order][np.searchsorted(passed, passed[-1] / 2)])


def commonest_metre(changes: list[tuple[float, Metre]], end: float) -> tuple[Metre | None, float]:
    """The metre that holds longest, and when it begins first; `changes` and `end` as in `median_tempo`."""
    changes = sorted(dict(changes).items())
    held: dict[Metre, float] = {}
    stops = [start for start, _ in changes[1:]] + [end]
    for (start, metre), stop in zip(changes, stops, strict=False):
        held[metre] = held.get(metre, 0) + max(stop - start, 0)
    commonest = max(held, key=lambda metre: held[metre], default=None)
    return commonest, next((start for start, metre in changes if metre == commonest), 0)

"""MIDI files <-> songs: symusic reads, pretty_midi writes.

Times are taken in beats (ticks over ticks per quarter note), so a change of tempo does not bend the grid. Starts and
ends are rounded to the nearest step; a note shorter than half a step keeps one step, a note of no length at all is an
artefact of editors and is dropped, and so are drums and pitches that are no keys of a piano.
"""

import io
from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vae.encoding import HIGHEST_PITCH, LOWEST_PITCH, Notes, Song, normalise
from vae.errors import UserError
from vae.files import write_atomically

if TYPE_CHECKING:
    import pretty_midi

DEFAULT_TEMPO = 120.0
"""What MIDI takes where a file states no tempo."""
SLOWEST, FASTEST = 10.0, 1000.0  # outside, a tempo is a slip (symusic gives infinity for a tempo of 0)
MAX_STEPS = 100_000
"""More is a broken file: 100,000 sixteenths are 3.5 hours at 120 beats a minute."""


class UnreadableFile(UserError):
    """A file of music that gives no song; `reason` is short enough for a list of them."""

    def __init__(self, path: Path, reason: str, way_out: str = "Pass a folder with pitched music.") -> None:
        super().__init__(f"{path}: {reason}. {way_out}")
        self.reason = f"{path.name} ({reason})"


def read_midi(path: Path, steps_per_beat: int) -> list[Song]:
    """The song of a MIDI file; of a type 2 file, whose tracks are independent, a song a track.

    Raises:
        UnreadableFile: it is no MIDI file, or has no notes for a piano.
    """
    songs = []
    reasons = []
    for title, data in _sequences(path):
        try:
            songs.append(_read_sequence(path, title, data, steps_per_beat))
        except UnreadableFile as error:
            reasons.append(error)
    if not songs:
        raise reasons[0]
    return songs


def _sequences(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and MIDI bytes of the independent songs in a file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableFile(path, f"cannot be opened: {error.strerror}", "Check its permissions.") from error
    if data[:4] != b"MThd" or int.from_bytes(data[8:10], "big") != 2:
        yield path.stem, data
        return
    header = data[:8] + bytes([0, 0, 0, 1]) + data[12:14]  # type 0, one track, the same ticks
    position, track = 14, 0
    while data[position : position + 4] == b"MTrk":
        size = 8 + int.from_bytes(data[position + 4 : position + 8], "big")
        yield f"{path.stem} track {track + 1}", header + data[position : position + size]
        position, track = position + size, track + 1
    if not track:
        raise UnreadableFile(path, "not MIDI: a type 2 file without tracks")


def _read_sequence(path: Path, name: str, data: bytes, steps_per_beat: int) -> Song:
    import symusic  # here, for a machine that trains has no readers

    try:
        score = symusic.Score.from_midi(data)
    except RuntimeError as error:
        reason = str(error).removeprefix("MiniMidi: ").partition("!")[0].partition("\n")[0]
        raise UnreadableFile(path, f"not MIDI: {reason}") from error
    if score.tpq <= 0:
        raise UnreadableFile(path, "not MIDI: 0 ticks per quarter note")
    tables = [_table(track) for track in score.tracks if not track.is_drum]
    table = np.concatenate([np.zeros((0, 3)), *tables])
    if not len(table) and score.note_num():
        reason = f"all {score.note_num()} notes are percussion"
        raise UnreadableFile(path, f"{_no_pitches()}; {reason}")
    return song_of(
        path,
        name,
        table / [1, score.tpq, score.tpq],
        steps_per_beat,
        tempo=_tempo(score),
        beats_per_bar=_beats_per_bar(score),
    )


def _table(track: Any) -> npt.NDArray[np.float64]:
    """[notes, 3]: pitch, start and end in ticks."""
    notes = track.notes.numpy()
    start = notes["time"].astype(np.float64)
    return np.stack([notes["pitch"].astype(np.float64), start, start + notes["duration"]], axis=1)


def _no_pitches() -> str:
    return f"no notes between pitch {LOWEST_PITCH} and {HIGHEST_PITCH} (piano range)"


def song_of(
    path: Path,
    name: str,
    table: npt.NDArray[np.float64],
    steps_per_beat: int,
    tempo: float,
    beats_per_bar: Fraction | None,
) -> Song:
    """Puts notes on the grid, whole beats of silence before them left out.

    Args:
        path: the file they came from, for errors.
        name: of the song.
        table: [notes, 3], pitch, start and end in beats.
        steps_per_beat: the grid.
        tempo: beats a minute.
        beats_per_bar: of the commonest metre, if known.
    """
    heard = table[table[:, 2] > table[:, 1]]
    keys = heard[(heard[:, 0] >= LOWEST_PITCH) & (heard[:, 0] <= HIGHEST_PITCH)]
    if not len(keys):
        raise UnreadableFile(path, f"{_no_pitches()}{_why_none(len(table), len(heard))}")
    if keys[:, 1].min() < 0:
        raise UnreadableFile(path, "a note starts before the file does", "Its times overflow; export it anew.")
    beats = keys[:, 1:] - np.floor(keys[:, 1].min())
    grid = np.floor(beats * steps_per_beat + 0.5)
    grid[:, 1] = np.maximum(grid[:, 1], grid[:, 0] + 1)
    steps = int(grid[:, 1].max())
    if steps > MAX_STEPS:
        raise UnreadableFile(path, f"{steps:,} steps long, over {MAX_STEPS:,}", "Cut it into songs.")
    notes = normalise(np.concatenate([keys[:, :1], grid], axis=1))
    bar = None if beats_per_bar is None else beats_per_bar * steps_per_beat
    steps_per_bar = int(bar) if bar and bar.denominator == 1 else None
    return Song(name, notes, steps, tempo, steps_per_bar, out_of_range=len(heard) - len(keys))


def _why_none(notes: int, heard: int) -> str:
    if not notes:
        return "; it has no notes at all"
    return f"; all {heard} notes lie outside" if heard else f"; all {notes} notes have no length"


def _tempo(score: Any) -> float:
    """The median over time; `DEFAULT_TEMPO` where a tempo is missing or absurd."""
    events = {0: DEFAULT_TEMPO} | {event.time: sane_tempo(event.qpm) for event in score.tempos}
    return median_tempo(list(events.items()), score.end())


def sane_tempo(tempo: float) -> float:
    """A tempo, or `DEFAULT_TEMPO` in place of a broken one."""
    return float(tempo) if SLOWEST <= tempo <= FASTEST else DEFAULT_TEMPO


def median_tempo(changes: list[tuple[float, float]], end: float) -> float:
    """The tempo above and below which a song spends half its time each.

    Args:
        changes: (time in beats or ticks, tempo from there on).
        end: of the song, in the same unit.
    """
    changes = sorted(change for change in changes if change[0] < end) or changes[:1]
    starts = np.array([start for start, _ in changes])
    tempos = np.array([tempo for _, tempo in changes])
    seconds = np.diff(np.append(starts, max(end, starts[-1] + 1))) / tempos
    order = np.argsort(tempos)
    passed = np.cumsum(seconds[order])
    return float(tempos[order][np.searchsorted(passed, passed[-1] / 2)])


def _beats_per_bar(score: Any) -> Fraction | None:
    changes = [(event.time, Fraction(4 * event.numerator, event.denominator)) for event in score.time_signatures]
    return commonest_bar(changes, score.end())


def commonest_bar(changes: list[tuple[float, Fraction]], end: float) -> Fraction | None:
    """The beats of a bar that hold longest; `changes` and `end` as in `median_tempo`."""
    changes = sorted(changes)
    held: dict[Fraction, float] = {}
    stops = [start for start, _ in changes[1:]] + [end]
    for (start, bar), stop in zip(changes, stops, strict=False):
        held[bar] = held.get(bar, 0) + max(stop - start, 0)
    return max(held, key=lambda bar: held[bar], default=None)


def write_midi(
    notes: Notes,
    path: Path,
    tempo: float,
    steps_per_beat: int,
    name: str,
    program: int = 0,
    steps_per_bar: int | None = None,
) -> None:
    """Writes notes as a MIDI file: the same bytes for the same notes; arguments as in `to_pretty_midi`."""
    buffer = io.BytesIO()
    to_pretty_midi(notes, tempo, steps_per_beat, name, program, steps_per_bar).write(buffer)
    write_atomically(path, _titled(buffer.getvalue(), name))


def to_pretty_midi(
    notes: Notes,
    tempo: float,
    steps_per_beat: int,
    name: str,
    program: int = 0,
    steps_per_bar: int | None = None,
) -> "pretty_midi.PrettyMIDI":
    """Notes as one instrument of pretty_midi, which writes and synthesises them.

    Args:
        notes: [notes, 3], in steps.
        tempo: beats a minute.
        steps_per_beat: the grid of the notes.
        name: of the track.
        program: General MIDI instrument, 0 to 127; 0 is a piano.
        steps_per_bar: the metre; 4/4 if None.
    """
    import pretty_midi  # here, for a machine that trains has no writers

    # A whole number of ticks a step, so that rounding moves no note.
    resolution = steps_per_beat * ceil(480 / steps_per_beat)
    midi = pretty_midi.PrettyMIDI(resolution=resolution, initial_tempo=tempo)
    midi.time_signature_changes.append(pretty_midi.TimeSignature(*_metre(steps_per_bar, steps_per_beat), 0))
    instrument = pretty_midi.Instrument(program, name=_latin(name))
    seconds = 60 / (tempo * steps_per_beat)
    for pitch, start, end in notes.tolist():
        instrument.notes.append(pretty_midi.Note(80, pitch, start * seconds, end * seconds))
    midi.instruments.append(instrument)
    return midi


def _metre(steps_per_bar: int | None, steps_per_beat: int) -> tuple[int, int]:
    """Numerator and denominator, quarters or shorter; 4/4 where there is none that MIDI can state."""
    whole = Fraction(steps_per_bar or 4 * steps_per_beat, 4 * steps_per_beat)
    denominator = max(4, whole.denominator)
    numerator = whole * denominator
    stated = numerator.denominator == 1 and numerator < 256 and denominator.bit_count() == 1
    return (int(numerator), denominator) if stated else (4, 4)


def _latin(name: str) -> str:
    """The name in the characters and length that a MIDI event of one length byte takes."""
    return name.encode("latin-1", "replace").decode("latin-1")[:127]


def _titled(midi: bytes, title: str) -> bytes:
    """Names the first track, which is the title of the piece; pretty_midi leaves it without."""
    text = _latin(title).encode("latin-1")
    event = b"\x00\xff\x03" + bytes([len(text)]) + text  # at tick 0, meta event 3
    size = int.from_bytes(midi[18:22], "big") + len(event)
    return midi[:18] + size.to_bytes(4, "big") + event + midi[22:]

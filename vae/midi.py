"""MIDI files <-> songs: symusic reads, pretty_midi writes.

Times are taken in beats (ticks over ticks per quarter note), so a change of tempo does not bend the grid. Drums are
left out.
"""

import io
from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vae.encoding import DEFAULT_TEMPO, Notes, Song
from vae.files import write_atomically
from vae.grid import (
    NO_PITCHES,
    Metre,
    UnreadableFileError,
    commonest_metre,
    median_tempo,
    sane_tempo,
    song_of,
    songs_of,
)

if TYPE_CHECKING:
    import pretty_midi

_CUT = ("Invalid chunk length", "Unexpected EOF", "File size is less than")
"""What symusic says of files that end too early."""
_PIANO = 0  # its number among General MIDI's instruments


def read_midi(path: Path, steps_per_beat: int) -> list[Song | str]:
    """The song of a MIDI file; of a type 2 file, whose tracks are independent, a song a track, or why there is none.

    Raises:
        UnreadableFileError: it is no MIDI file, or has no notes for a piano.
    """

    def read(name: str, data: bytes) -> Song:
        return _read_sequence(path, name, data, steps_per_beat)

    return songs_of(path, "not MIDI", read, _sequences(path))


def _sequences(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and MIDI bytes of the independent songs in a file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableFileError(path, f"cannot be opened: {error.strerror}", "Check its permissions.") from error
    if data[:4] == b"RIFF" and b"MThd" in data:
        data = data[data.index(b"MThd") :]  # Windows wraps MIDI so, in .rmi files
    if data[:4] != b"MThd":
        raise UnreadableFileError(path, "not MIDI: no MThd at its start" if data else "not MIDI: the file is empty")
    if int.from_bytes(data[8:10], "big") != 2:
        yield path.stem, data
        return
    header = data[:8] + bytes([0, 0, 0, 1]) + data[12:14]  # type 0, one track, the same ticks
    position, track = 14, 0
    while data[position : position + 4] == b"MTrk":
        size = 8 + int.from_bytes(data[position + 4 : position + 8], "big")
        yield f"{path.stem} track {track + 1}", header + data[position : position + size]
        position, track = position + size, track + 1
    if not track:
        raise UnreadableFileError(path, "not MIDI: a type 2 file without tracks")


def _read_sequence(path: Path, name: str, data: bytes, steps_per_beat: int) -> Song:
    import symusic  # here, for a machine that trains has no readers

    try:
        score = symusic.Score.from_midi(data)
    except RuntimeError as error:
        reason = str(error).removeprefix("MiniMidi: ").removesuffix(": iostream error")
        if any(told in reason for told in _CUT):
            raise UnreadableFileError(path, "broken MIDI: it ends too early", "Fetch or export it anew.") from error
        raise UnreadableFileError(path, f"not MIDI: {reason}") from error
    if score.tpq <= 0:
        raise UnreadableFileError(path, "not MIDI: 0 ticks per quarter note")
    tables = [_table(track) for track in score.tracks if not track.is_drum]
    table = np.concatenate([np.zeros((0, 3)), *tables])
    if not len(table) and score.note_num():
        reason = f"all {score.note_num()} notes are percussion"
        raise UnreadableFileError(path, f"{NO_PITCHES}; {reason}")
    metre, bar_line = _metre_of(score)
    return song_of(
        path,
        name,
        table / [1, score.tpq, score.tpq],
        steps_per_beat,
        tempo=_tempo(score),
        metre=metre,
        bar_line=bar_line / score.tpq,
    )


def _table(track: Any) -> npt.NDArray[np.float64]:
    """[notes, 3]: pitch, start and end in ticks."""
    notes = track.notes.numpy()
    start = notes["time"].astype(np.float64)
    return np.stack([notes["pitch"].astype(np.float64), start, start + notes["duration"]], axis=1)


def _tempo(score: Any) -> float:
    """The median over time; `DEFAULT_TEMPO` where a tempo is missing or absurd."""
    events = {0: DEFAULT_TEMPO} | {event.time: sane_tempo(event.qpm) for event in score.tempos}
    return median_tempo(list(events.items()), score.end())


def _metre_of(score: Any) -> tuple[Metre | None, float]:
    """The commonest, and the tick at which it begins."""
    signs = [sign for sign in score.time_signatures if sign.denominator]  # 0 is what symusic makes of absurd ones
    return commonest_metre([(sign.time, (sign.numerator, sign.denominator)) for sign in signs], score.end())


def write_midi(
    notes: Notes,
    path: Path,
    tempo: float,
    steps_per_beat: int,
    name: str,
    steps_per_bar: int | None = None,
    beat_type: int = 4,
) -> None:
    """Writes notes as a MIDI file: the same bytes for the same notes; arguments as in `to_pretty_midi`."""
    buffer = io.BytesIO()
    to_pretty_midi(notes, tempo, steps_per_beat, name, steps_per_bar, beat_type).write(buffer)
    write_atomically(path, _titled(buffer.getvalue(), name))


def to_pretty_midi(
    notes: Notes,
    tempo: float,
    steps_per_beat: int,
    name: str,
    steps_per_bar: int | None = None,
    beat_type: int = 4,
) -> "pretty_midi.PrettyMIDI":
    """Notes as a piano of pretty_midi, which writes and synthesises them.

    Args:
        notes: [notes, 3], in steps.
        tempo: beats a minute.
        steps_per_beat: the grid of the notes.
        name: of the track.
        steps_per_bar: the metre; 4/4 if None.
        beat_type: its denominator, where that can be.
    """
    import pretty_midi  # here, for a machine that trains has no writers

    # A whole number of ticks a step, so that rounding moves no note.
    resolution = steps_per_beat * ceil(480 / steps_per_beat)
    midi = pretty_midi.PrettyMIDI(resolution=resolution, initial_tempo=tempo)
    midi.time_signature_changes.append(pretty_midi.TimeSignature(*_metre(steps_per_bar, steps_per_beat, beat_type), 0))
    instrument = pretty_midi.Instrument(_PIANO, name=_latin(name))
    seconds = 60 / (tempo * steps_per_beat)
    for pitch, start, end in notes.tolist():
        instrument.notes.append(pretty_midi.Note(80, pitch, start * seconds, end * seconds))
    midi.instruments.append(instrument)
    return midi


def _metre(steps_per_bar: int | None, steps_per_beat: int, beat_type: int) -> Metre:
    """With this denominator, or a larger one; 4/4 where there is none that MIDI can state."""
    whole = Fraction(steps_per_bar or 4 * steps_per_beat, 4 * steps_per_beat)
    denominator = max(beat_type, whole.denominator)
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

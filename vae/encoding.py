"""Songs as notes, and notes as arrays.

A song lies on a grid of time steps. Pitches are MIDI numbers, 21 (A0) to 108 (C8): the 88 keys of a piano.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LOWEST_PITCH = 21
HIGHEST_PITCH = 108
PITCHES = HIGHEST_PITCH - LOWEST_PITCH + 1
DEFAULT_TEMPO = 120.0
"""Beats a minute where none is stated, as MIDI has it."""
FEATURES = {"roll": PITCHES, "roll_onset": 2 * PITCHES}
"""Numbers a time step of each encoding of notes: 88 keys sounding; in `roll_onset` 88 onsets follow."""

Notes = npt.NDArray[np.int32]
"""[notes, 3]: pitch, first step, step after the last; sorted by start, then pitch; end > start >= 0."""


@dataclass(frozen=True)
class DataSpec:
    """What a model must know of its data; stands in every checkpoint.

    `encoding` is `roll` or `roll_onset` (keys of a piano, 0 or 1), `binary` (any 0-or-1 vectors) or `real`.
    """

    encoding: str
    features: int  # D, numbers a time step
    steps_per_beat: int
    steps_per_bar: int | None  # None where the metre is unknown
    tempo: float  # beats (quarter notes) a minute, for playing
    window: int  # steps in the natural unit of this data: 16 beats of music, a whole [T, 88] array, 1 row
    longest_song: int  # steps, in train
    unit_interval: bool = False  # real data that lie in [0, 1]
    typical_song: int = 0  # steps of the median song; 0: unknown
    train_steps: int = 0  # in all of train; 0: unknown
    beat_type: int = 4  # the metre's denominator, such as 8 of 6/8

    @property
    def is_music(self) -> bool:
        """Whether the features are the keys of a piano, so that samples are MIDI files."""
        return self.encoding in FEATURES

    @property
    def is_binary(self) -> bool:
        """Whether the likelihood is Bernoulli; Gaussian otherwise."""
        return self.encoding != "real"


@dataclass(frozen=True)
class Song:
    """Notes on a grid of steps, starting within the first bar; within the first beat where the metre is unknown."""

    name: str
    notes: Notes
    steps: int  # T, to the end of the last note
    tempo: float  # beats (quarter notes) a minute
    steps_per_bar: int | None  # None where the metre is unknown
    beat_type: int = 4  # the metre's denominator
    out_of_range: int = 0  # notes left out, their pitches no keys of a piano


def music_steps(features: int, is_music: bool) -> int:
    """Steps of music that a step of data is as wide as: a row may be a whole window."""
    return 1 if is_music else max(1, features // PITCHES)


def normalise(notes: npt.ArrayLike) -> Notes:
    """Sorts notes, and lets no key sound twice at once.

    A new onset cuts the earlier note of the same pitch, and sounds on where that one would have; of two notes with one
    onset the longer stays.
    """
    table = np.asarray(notes, np.int32).reshape(-1, 3)
    table = table[np.lexsort((table[:, 2], table[:, 1], table[:, 0]))]
    pitch, start = table[:, 0], table[:, 1]
    apart = pitch.astype(np.int64) << 32  # so that no key's notes end before those of the keys below it
    table[:, 2] = np.maximum.accumulate(apart + table[:, 2]) - apart
    same_key = pitch[:-1] == pitch[1:]
    kept = np.append(~(same_key & (start[:-1] == start[1:])), True)[: len(table)]
    table = table[kept]
    same_key = table[:-1, 0] == table[1:, 0]
    table[:-1, 2] = np.where(same_key, np.minimum(table[:-1, 2], table[1:, 1]), table[:-1, 2])
    in_time: Notes = table[np.lexsort((table[:, 0], table[:, 1]))]
    return in_time


def encode(song: Song, encoding: str) -> npt.NDArray[np.uint8]:
    """A song as an array [T, D] of 0 and 1; D as in `FEATURES`."""
    notes = normalise(song.notes)
    key = notes[:, 0] - LOWEST_PITCH
    change = np.zeros((song.steps + 1, PITCHES), np.int8)
    # A key struck again in the step where it ends both rises and falls there, hence the unbuffered `at`.
    np.add.at(change, (notes[:, 1], key), 1)
    np.subtract.at(change, (notes[:, 2], key), 1)
    sound = np.cumsum(change[:-1], axis=0, dtype=np.int8).astype(np.uint8)
    if encoding == "roll":
        return sound
    onset = np.zeros_like(sound)
    onset[notes[:, 1], key] = 1
    return np.concatenate([sound, onset], axis=1)


def decode(array: npt.ArrayLike, encoding: str) -> Notes:
    """The notes of an array [T, D] of 0 and 1.

    In `roll` a note is a run of steps in which its key sounds. In `roll_onset` an onset bit within a run starts
    a new note; an onset bit without sound is ignored.
    """
    bits = np.asarray(array).astype(bool)
    sound = np.zeros((len(bits) + 2, PITCHES), bool)  # silence before and after
    sound[1:-1] = bits[:, :PITCHES]
    now, before = sound[1:], sound[:-1]
    starts = now & ~before
    if encoding == "roll_onset":
        starts[:-1] |= now[:-1] & bits[:, PITCHES:]
    ends = before & (starts | ~now)
    # Read key by key, starts and ends alternate, so the k-th start belongs to the k-th end.
    key, start = np.nonzero(starts.T)
    end = np.nonzero(ends.T)[1]
    return normalise(np.stack([key + LOWEST_PITCH, start, end], axis=1))

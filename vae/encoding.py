"""Songs as notes, and notes as arrays.

A song lies on a grid of time steps. Pitches are MIDI numbers, 21 (A0) to 108 (C8): the 88 keys of a piano.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LOWEST_PITCH = 21
HIGHEST_PITCH = 108
PITCHES = HIGHEST_PITCH - LOWEST_PITCH + 1
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
    longest_song: int  # steps
    unit_interval: bool = False  # real data that lie in [0, 1]

    @property
    def is_music(self) -> bool:
        """Whether the features are the keys of a piano, so that samples are MIDI files."""
        return self.encoding in FEATURES

    @property
    def is_binary(self) -> bool:
        """Whether the likelihood is Bernoulli; Gaussian otherwise."""
        return self.encoding != "real"

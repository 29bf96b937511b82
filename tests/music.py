"""Songs for tests: drawn by hypothesis, composed, and written to files."""

from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from vae.encoding import Notes, Song, normalise
from vae.midi import write_midi


@st.composite
def songs(draw: st.DrawFn) -> Song:
    """Songs whose first note starts in the first beat, as reading gives them."""
    note = st.tuples(st.integers(21, 108), st.integers(0, 60), st.integers(1, 20))
    drawn = draw(st.lists(note, min_size=1, max_size=40))
    first = min(start for _, start, _ in drawn)
    notes = normalise([(pitch, start - first, start - first + length) for pitch, start, length in drawn])
    return Song("drawn", notes, int(notes[:, 2].max()), draw(st.floats(20, 300)), None)


def tune(seed: int, notes: int = 24, transpose: int = 0) -> Notes:
    """A melody over a bass; the same for the same seed."""
    rng = np.random.default_rng(seed)
    start = 4 * np.arange(notes)
    high = 66 + transpose + rng.integers(0, 12, notes)
    low = 42 + transpose + rng.integers(0, 12, notes)
    return normalise(np.concatenate([np.stack([pitch, start, start + 4], axis=1) for pitch in (high, low)]))


def write_tunes(folder: Path, names: dict[str, Notes]) -> Path:
    """A folder of MIDI files."""
    for name, notes in names.items():
        write_midi(notes, folder / f"{name}.mid", 100.0, 4, name)
    return folder

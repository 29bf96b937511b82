"""Songs dealt to train, valid and test by what they hold: no tune on two sides; names and order say nothing."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from math import ceil

import numpy as np
import numpy.typing as npt

from vae.encoding import PITCHES, Notes, Song, encode

SPLITS = ("train", "valid", "test")
OPENING = 10
"""Notes, or beats, of a melody that two settings of one tune share.

In Bach's chorales it finds 58 tunes that recur, in 180 of 350 chorales, and 72 in 100 pairs of one title; the
first 14 notes alone find 49 tunes and 37 pairs in 100.
"""
HELD_OUT_STEPS = 50_000
"""Of valid, and of test, about, that are enough: valid is scored again and again."""
VARIETY = 4
"""Pitches that an opening must have: one repeated note begins many songs."""


def digest(array: npt.NDArray[np.generic]) -> bytes:
    """A hash of an array's values."""
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).digest()


def tunes(songs: Sequence[Song], steps_per_beat: int) -> list[bytes]:
    """Names the tune of every song.

    Songs are of one tune if, up to transposition, their notes are the same, or the openings of their melodies
    are: the same notes in any rhythm, or the same notes on the beats.
    """
    parent = list(range(len(songs)))

    def root(song: int) -> int:
        while parent[song] != song:
            parent[song] = parent[parent[song]]  # else the way grows with every song of a tune
            song = parent[song]
        return song

    owner: dict[bytes, int] = {}
    for number, song in enumerate(songs):
        for key in _keys(song, steps_per_beat):
            parent[root(owner.setdefault(key, number))] = root(number)
    contents = [digest(_from_first_beat(song, steps_per_beat)) for song in songs]
    names: dict[int, bytes] = {}
    for number, content in enumerate(contents):
        names[root(number)] = min(content, names.get(root(number), content))
    return [names[root(number)] for number in range(len(songs))]


def _keys(song: Song, steps_per_beat: int) -> list[bytes]:
    """Hashes of what identifies a tune."""
    start, pitch = melody(song)
    first_beat = start[0] // steps_per_beat * steps_per_beat
    beats = np.arange(first_beat, song.steps, steps_per_beat)
    # A rest prolongs the note before it: editions differ in where they write one.
    on_beats = pitch[np.maximum(np.searchsorted(start, beats, side="right") - 1, 0)]
    openings = {b"notes": _opening(pitch), b"beats": _opening(on_beats)}
    whole = _from_first_beat(song, steps_per_beat) - [song.notes[0, 0], 0, 0]
    keys = [b"whole" + digest(whole.astype(np.int32))]
    return keys + [kind + digest(opening) for kind, opening in openings.items() if opening is not None]


def _from_first_beat(song: Song, steps_per_beat: int) -> Notes:
    """Its notes without whole beats of rest before them: editions differ in whether they fill the bar of an upbeat."""
    silence = song.notes[0, 1] // steps_per_beat * steps_per_beat
    notes: Notes = song.notes - np.array([0, silence, silence], np.int32)
    return notes


def melody(song: Song) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Starts and pitches of the notes above which none sounds when they start; pitch 0 is the lowest key."""
    bits = encode(song, "roll_onset")
    sound, onset = bits[:, :PITCHES], bits[:, PITCHES:]
    top = PITCHES - 1 - np.argmax(sound[:, ::-1], axis=1)
    start = np.flatnonzero(onset[np.arange(song.steps), top])
    return start, top[start]


def _opening(pitches: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """The intervals of the shortest opening that tells tunes apart; None if the melody has none."""
    _, first = np.unique(pitches, return_index=True)
    if len(first) < VARIETY or len(pitches) < OPENING:
        return None
    length = max(OPENING, int(np.sort(first)[VARIETY - 1]) + 1)
    return np.diff(pitches[:length])


def deal(names: Sequence[bytes], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which of `SPLITS` each song belongs to; songs of one name stay together.

    Valid and test get a tenth of the songs each, rounded up, or fewer where that is more than enough; train the rest.

    Args:
        names: [songs], of their tunes; hashes, so that their order says nothing. At least 3 that differ.
        lengths: [songs], in steps of music, or steps as wide.
    """
    sizes = Counter(names)
    waiting = sorted(sizes)
    room = min(ceil(len(names) / 10), ceil(HELD_OUT_STEPS / lengths.mean()))
    side = dict.fromkeys(waiting, 0)
    for number, others in ((2, 2), (1, 1)):
        taken = set(_draw(waiting, sizes, room, others))
        side |= dict.fromkeys(taken, number)
        waiting = [name for name in waiting if name not in taken]
    return np.array([side[name] for name in names], np.int64)


def _draw(waiting: list[bytes], sizes: Counter[bytes], room: int, others: int) -> list[bytes]:
    """The first tunes whose songs fit into `room`, the smallest if none does; leaves `others` tunes at least."""
    taken: list[bytes] = []
    for name in waiting:
        if sizes[name] <= room and len(waiting) - len(taken) > others:
            taken.append(name)
            room -= sizes[name]
    return taken or [min(waiting, key=lambda name: (sizes[name], name))]

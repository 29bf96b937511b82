import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from music import tune

from vae.encoding import Song, normalise
from vae.splitting import deal, melody, tunes


def song(notes) -> Song:
    notes = normalise(notes)
    return Song("a", notes, int(notes[:, 2].max()), 120.0, None)


def repeated(pitches: list[int], length: int = 4) -> Song:
    return song([(pitch, length * i, length * i + length) for i, pitch in enumerate(pitches)])


def test_a_transposed_song_is_the_same_tune():
    same, other = song(tune(1)), song(tune(2))
    moved = song(tune(1, transpose=5))
    names = tunes([same, other, moved], 4)
    assert names[0] == names[2] != names[1]


def test_another_bass_and_another_end_make_no_other_tune():
    first = tune(1)
    melody_alone = first[first[:, 0] >= 60]
    longer = np.concatenate([melody_alone, [[80, 96, 99]]])
    assert len(set(tunes([song(first), song(melody_alone), song(longer)], 4))) == 1


def test_another_rhythm_makes_no_other_tune():
    first = tune(1)
    assert len(set(tunes([song(first), song(first * [1, 2, 2])], 4))) == 1


def test_a_passing_note_makes_no_other_tune():
    pitches = [60, 64, 62, 65, 67, 60, 72, 71, 69, 67, 65]
    ornate = np.concatenate([repeated(pitches).notes, [[63, 2, 4], [66, 14, 16]]])
    assert len(set(tunes([repeated(pitches), song(ornate)], 4))) == 1


def test_rests_before_an_upbeat_make_no_other_tune():
    short = repeated([60, 62])  # told by all its notes
    pitches = [60, 64, 62, 65, 67, 60, 72, 71, 69, 67, 65]
    ornate = np.concatenate([repeated(pitches).notes, [[63, 2, 4], [66, 14, 16]]])
    later = song(np.add(ornate, [0, 12, 12]))
    assert len(set(tunes([short, song(np.add(short.notes, [0, 12, 12]))], 4))) == 1
    assert len(set(tunes([repeated(pitches), later], 4))) == 1


def test_rests_before_an_upbeat_change_no_name():
    songs = [song(tune(seed)) for seed in range(6)]
    assert tunes(songs, 4) == tunes([song(np.add(each.notes, [0, 12, 12])) for each in songs], 4)


def test_songs_that_begin_with_one_repeated_note_stay_apart():
    first = repeated([60] * 20 + [62, 64, 65, 67])
    second = repeated([60] * 20 + [67, 65, 69, 72])
    flat = [repeated([60] * n) for n in (12, 13, 14)]
    assert len(set(tunes([first, second, *flat], 4))) == 5


def test_songs_shorter_than_an_opening_are_told_by_all_their_notes():
    assert len(set(tunes([repeated([60, 62]), repeated([60, 63]), repeated([65, 67])], 4))) == 2


def test_melody_is_the_note_above_which_none_sounds():
    start, pitch = melody(song([(72, 0, 8), (60, 0, 4), (64, 4, 12), (65, 8, 12)]))
    assert start.tolist() == [0, 8]
    assert (pitch + 21).tolist() == [72, 65]


def test_names_do_not_depend_on_order_or_name():
    songs = [song(tune(seed)) for seed in range(6)]
    renamed = [replace(each, name="b", tempo=90.0) for each in reversed(songs)]
    assert tunes(songs, 4) == tunes(renamed, 4)[::-1]


def test_twice_as_many_songs_of_one_tune_take_about_twice_as_long():
    def seconds(count):
        started = time.process_time()
        assert len(set(tunes([repeated([60, 62])] * count, 4))) == 1
        return time.process_time() - started

    once, twice = (min(seconds(count) for _ in range(3)) for count in (5_000, 10_000))
    assert twice < 3.0 * once  # four times, if every song makes the way to the others longer


@given(st.lists(st.integers(0, 40), min_size=3, max_size=200).filter(lambda drawn: len(set(drawn)) >= 3))
def test_no_tune_is_on_two_sides_and_no_side_is_empty(drawn):
    names = [bytes([number]) for number in drawn]
    sides = deal(names, np.full(len(names), 60))
    assert set(sides.tolist()) == {0, 1, 2}
    assert all(len(set(sides[np.array(drawn) == number].tolist())) == 1 for number in drawn)


@pytest.mark.parametrize(
    ("songs", "expected"), [(3, [1, 1, 1]), (10, [8, 1, 1]), (11, [7, 2, 2]), (350, [280, 35, 35])]
)
def test_a_tenth_of_the_songs_rounded_up_goes_to_valid_and_to_test(songs, expected):
    names = [number.to_bytes(2, "big") for number in range(songs)]
    assert np.bincount(deal(names, np.full(songs, 60))).tolist() == expected


def test_of_very_much_music_some_is_held_out_and_the_rest_trained_on():
    names = [number.to_bytes(2, "big") for number in range(3000)]
    assert np.bincount(deal(names, np.full(3000, 1000))).tolist() == [2900, 50, 50]
    assert np.bincount(deal(names, np.full(3000, 100_000))).tolist() == [2998, 1, 1]


def test_the_sides_of_songs_do_not_depend_on_their_order():
    names = [bytes([number % 17]) for number in range(60)]
    lengths = np.arange(60) + 1
    assert deal(names[::-1], lengths[::-1]).tolist() == deal(names, lengths).tolist()[::-1]


def test_no_tune_of_the_chorales_is_on_two_sides(bach_corpus):
    """Checked by another way than the split's: the soprano's first notes."""
    seen: Counter[bytes] = Counter()
    for split in bach_corpus.splits.values():
        ends = np.cumsum(split.lengths)
        top = [np.argmax(song[:, 87::-1] > 0, axis=1) for song in np.split(split.values, ends[:-1])]
        runs = [part[np.flatnonzero(np.diff(part, prepend=-1))] for part in top]
        seen.update({np.diff(run[:12]).astype(np.int8).tobytes() for run in runs})
    assert max(seen.values()) == 1

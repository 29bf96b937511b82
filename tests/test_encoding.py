import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from music import songs

from vae.encoding import HIGHEST_PITCH, LOWEST_PITCH, PITCHES, Song, decode, encode, normalise


def song(*notes: tuple[int, int, int], steps: int) -> Song:
    return Song("a", normalise(notes), steps, 120.0, None)


@given(songs())
def test_a_song_survives_roll_onset(song):
    assert np.array_equal(decode(encode(song, "roll_onset"), "roll_onset"), song.notes)


@given(songs())
def test_roll_keeps_what_sounds(song):
    roll = encode(song, "roll")
    merged = Song("b", decode(roll, "roll"), song.steps, 120.0, None)
    assert np.array_equal(encode(merged, "roll"), roll)
    assert np.array_equal(roll, encode(song, "roll_onset")[:, :PITCHES])


@given(st.lists(st.tuples(st.integers(21, 108), st.integers(0, 20), st.integers(1, 9)), max_size=30))
def test_normalised_notes_of_a_key_never_overlap(raw):
    notes = normalise([(pitch, start, start + length) for pitch, start, length in raw])
    assert np.array_equal(normalise(notes), notes)
    assert (notes[:, 2] > notes[:, 1]).all()
    for pitch in set(notes[:, 0].tolist()):
        own = notes[notes[:, 0] == pitch]
        assert (own[1:, 1] >= own[:-1, 2]).all()
    assert {tuple(note[:2]) for note in notes.tolist()} == {(pitch, start) for pitch, start, _ in raw}


@given(st.lists(st.tuples(st.integers(21, 108), st.integers(0, 20), st.integers(1, 9)), max_size=30))
def test_a_key_sounds_wherever_one_of_its_notes_does(raw):
    sounding = {(pitch, step) for pitch, start, length in raw for step in range(start, start + length)}
    notes = normalise([(pitch, start, start + length) for pitch, start, length in raw]).tolist()
    assert {(pitch, step) for pitch, start, end in notes for step in range(start, end)} == sounding


def test_a_new_onset_cuts_the_earlier_note_and_sounds_on_for_it():
    assert normalise([(60, 0, 4), (60, 2, 6)]).tolist() == [[60, 0, 2], [60, 2, 6]]
    assert normalise([(60, 0, 16), (60, 4, 5)]).tolist() == [[60, 0, 4], [60, 4, 16]]
    assert normalise([(60, 0, 9), (60, 2, 3), (60, 5, 6), (61, 4, 5)]).tolist() == [
        *([60, 0, 2], [60, 2, 5], [61, 4, 5], [60, 5, 9])
    ]


def test_of_two_notes_with_one_onset_the_longer_stays():
    assert normalise([(60, 0, 3), (60, 0, 8), (60, 0, 5)]).tolist() == [[60, 0, 8]]


def test_repeated_notes_survive_in_roll_onset_alone():
    repeated = song((60, 0, 2), (60, 2, 4), steps=4)
    assert decode(encode(repeated, "roll_onset"), "roll_onset").tolist() == [[60, 0, 2], [60, 2, 4]]
    assert decode(encode(repeated, "roll"), "roll").tolist() == [[60, 0, 4]]


def test_an_onset_without_sound_is_ignored():
    array = encode(song((60, 0, 2), steps=4), "roll_onset")
    array[3, PITCHES + 10] = 1
    assert decode(array, "roll_onset").tolist() == [[60, 0, 2]]


def test_sound_without_an_onset_starts_a_note():
    array = encode(song((60, 1, 3), steps=4), "roll_onset")
    array[:, PITCHES:] = 0
    assert decode(array, "roll_onset").tolist() == [[60, 1, 3]]


@pytest.mark.parametrize("encoding", ["roll", "roll_onset"])
def test_silence_and_the_outermost_keys_decode(encoding):
    silence = encode(song(steps=3), encoding)
    assert silence.shape[0] == 3
    assert decode(silence, encoding).shape == (0, 3)
    edges = song((LOWEST_PITCH, 0, 1), (HIGHEST_PITCH, 0, 1), steps=1)
    assert decode(encode(edges, encoding), encoding).tolist() == edges.notes.tolist()

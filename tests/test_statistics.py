"""vae.statistics: oracles, limits and invariances of each statistic."""

import json
import math
import time

import numpy as np
import pytest
from scipy import stats

from vae.corpus import Corpus, Split
from vae.encoding import LOWEST_PITCH, PITCHES, DataSpec, decode
from vae.statistics import (
    NGRAM,
    Library,
    correlation_distance,
    excerpts,
    measure,
    melody_ngrams,
    self_similarity,
    sounding_and_onsets,
    summarise,
)

ROLL = DataSpec("roll", PITCHES, 4, 16, 100.0, 64, 640)
ROLL_ONSET = DataSpec("roll_onset", 2 * PITCHES, 4, 16, 100.0, 64, 640)
REAL = DataSpec("real", 5, 1, None, 100.0, 1, 1)


def melody(pitches, steps_each=1):
    """One voice, [T, P]; a repeated pitch is one long note, as `roll` has it."""
    out = np.zeros((len(pitches) * steps_each, PITCHES), np.uint8)
    out[np.arange(len(out)), np.repeat(pitches, steps_each) - LOWEST_PITCH] = 1
    return out


def walk(generator, length):
    """A melody that never repeats a note at once."""
    steps = generator.choice([-4, -3, -2, -1, 1, 2, 3, 4], length)
    return 64 + (np.cumsum(steps) % 24)


def split_of(songs):
    return Split(np.concatenate(songs), np.array([len(song) for song in songs]))


def value(name, roll, spec=ROLL):
    return measure(roll[None], spec)[name][0]


@pytest.mark.parametrize("spec", [ROLL, ROLL_ONSET])
def test_onsets_are_the_starts_of_decoded_notes(spec):
    rolls = (np.random.default_rng(0).random((3, 32, spec.features)) < 0.3).astype(np.uint8)
    _, onsets = sounding_and_onsets(rolls, spec)
    for roll, struck in zip(rolls, onsets, strict=True):
        notes = decode(roll, spec.encoding)
        found = np.argwhere(struck)
        assert {(pitch - LOWEST_PITCH, start) for pitch, start, _ in notes.tolist()} == {
            (key, step) for step, key in found.tolist()
        }


def test_repeated_notes_count_only_where_the_encoding_keeps_them():
    sounding = melody([60, 60, 60, 60])
    both = np.concatenate([sounding, sounding], axis=1)
    assert value("notes_per_step", sounding) == 0.25
    assert value("notes_per_step", both, ROLL_ONSET) == 1.0


def test_polyphony_is_a_mean_over_sounding_steps_alone():
    roll = np.zeros((8, PITCHES), np.uint8)
    roll[0:2, 40:44] = 1
    roll[2:4, 40:42] = 1
    assert value("polyphony", roll) == 3.0
    assert value("silence", roll) == 0.5


def test_pitch_class_entropy_equals_scipys():
    roll = melody(walk(np.random.default_rng(1), 64))
    counts = np.bincount(decode(roll, "roll")[:, 0] % 12, minlength=12)
    assert value("pitch_class_entropy", roll) == pytest.approx(stats.entropy(counts, base=2), abs=1e-12)


def test_pitch_class_entropy_of_one_class_is_0_and_of_all_is_log2_of_12():
    assert value("pitch_class_entropy", melody([60, 72, 48, 60])) == 0.0
    assert value("pitch_class_entropy", melody(range(60, 72))) == pytest.approx(math.log2(12), abs=1e-12)


def test_a_repeated_bar_is_as_self_similar_as_can_be():
    bar = melody(walk(np.random.default_rng(2), 16))
    assert value("self_similarity", np.tile(bar, (4, 1))) == pytest.approx(1.0, abs=1e-12)


def test_music_of_other_pitch_classes_in_every_beat_has_no_self_similarity():
    assert value("self_similarity", melody(range(60, 68), steps_each=4)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("silent", [(), (0, 5, 6, 7, 14)], ids=["busy", "rests"])
def test_self_similarity_equals_a_loop_over_beats(silent):
    roll = (np.random.default_rng(3).random((68, PITCHES)) < 0.05).astype(np.uint8)
    chroma = np.zeros((17, 12))
    for beat in silent:
        roll[4 * beat : 4 * beat + 4] = 0
    for step, key in np.argwhere(roll):
        chroma[step // 4, (key + LOWEST_PITCH) % 12] += 1
    means = []
    for lag in range(2, 9):
        pairs = [(chroma[b], chroma[b + lag]) for b in range(17 - lag)]
        heard = [(a, b) for a, b in pairs if a.any() or b.any()]
        means.append(np.mean([a @ b / max(1e-9, np.linalg.norm(a) * np.linalg.norm(b)) for a, b in heard]))
    assert value("self_similarity", roll) == pytest.approx(max(means), abs=1e-12)


def test_a_song_of_many_beats_is_compared_with_itself_in_no_time():
    rolls = (np.random.default_rng(4).random((1, 25_000, PITCHES)) < 0.05).astype(np.uint8)
    started = time.process_time()
    self_similarity(rolls > 0, 1)
    assert time.process_time() - started < 2  # 14 s if every lag is a sum of its own


def test_transposition_changes_no_statistic():
    low = melody(walk(np.random.default_rng(4), 64))
    high = np.roll(low, 7, axis=1)
    library = Library(split_of([low]), ROLL)
    assert {name: v[0] for name, v in measure(low[None], ROLL).items()} == pytest.approx(
        {name: v[0] for name, v in measure(high[None], ROLL).items()}, abs=1e-12
    )
    assert library.copied(melody_ngrams(high[None] > 0)) == [1.0]


def test_octaves_do_not_change_pitch_class_statistics():
    low = melody(walk(np.random.default_rng(5), 64))
    moved = low.copy()
    moved[::2] = np.roll(moved[::2], 12, axis=1)
    for name in ("pitch_class_entropy", "self_similarity"):
        assert value(name, moved) == pytest.approx(value(name, low), abs=1e-12)


def test_silence_has_no_polyphony_entropy_or_similarity():
    found = {name: v[0] for name, v in measure(np.zeros((1, 64, PITCHES), np.uint8), ROLL).items()}
    assert found["silence"] == 1.0
    assert found["notes_per_step"] == 0.0
    assert all(math.isnan(found[name]) for name in ("polyphony", "pitch_class_entropy", "self_similarity"))


def copied(roll, library, song=None):
    _, onsets = sounding_and_onsets(roll[None], ROLL)
    return library.copied(melody_ngrams(onsets), None if song is None else np.array([song]))[0]


def test_any_window_of_a_training_song_is_all_copied():
    generator = np.random.default_rng(6)
    songs = [melody(walk(generator, 200), steps_each=2) for _ in range(3)]
    library = Library(split_of(songs), ROLL)
    for start in (0, 1, 17, 100):
        assert copied(songs[1][start : start + 64], library) == 1.0


def test_a_training_song_copies_nothing_from_itself():
    generator = np.random.default_rng(7)
    songs = [melody(walk(generator, 100)) for _ in range(2)]
    library = Library(split_of([*songs, songs[0]]), ROLL)
    assert copied(songs[1], library, song=1) == 0.0
    assert copied(songs[0], library, song=0) == 1.0  # the third song is the same


def test_half_a_copy_is_about_half_copied():
    generator = np.random.default_rng(8)
    song, other = walk(generator, 200), walk(generator, 100)
    library = Library(split_of([melody(song)]), ROLL)
    assert copied(melody(np.concatenate([song[:100], other])), library) == pytest.approx(0.5, abs=0.05)


def test_unrelated_music_copies_next_to_nothing():
    generator = np.random.default_rng(9)
    library = Library(split_of([melody(walk(generator, 300)) for _ in range(50)]), ROLL)
    assert copied(melody(walk(generator, 2000)), library) < 0.01


def test_too_short_a_melody_has_no_share_of_copies():
    library = Library(split_of([melody(range(60, 80))]), ROLL)
    assert math.isnan(copied(melody(range(60, 60 + NGRAM)), library))  # the first note may have begun earlier
    assert copied(melody(range(60, 61 + NGRAM)), library) == 1.0


def test_extreme_intervals_are_not_confused():
    wide = [21, 108, 21, 108, 21, 108, 21, 108, 21]
    library = Library(split_of([melody(wide)]), ROLL)
    assert copied(melody(wide), library) == 1.0
    assert copied(melody([*wide[:-1], 22]), library) == 0.0


def test_excerpts_are_full_windows_of_one_song_each():
    songs = [np.full((length, 3), number, np.uint8) for number, length in enumerate((10, 3, 25, 4))]
    cut, song = excerpts(split_of(songs), 5)
    assert cut.shape == (7, 5, 3)
    assert song.tolist() == [0, 0, 2, 2, 2, 2, 2]
    assert np.array_equal(cut, np.broadcast_to(song[:, None, None], cut.shape))


def test_of_songs_that_are_all_too_short_windows_are_as_long_as_the_median_one():
    cut, song = excerpts(split_of([np.ones((length, 3), np.uint8) for length in (2, 4, 3)]), 5)
    assert np.array_equal(cut, np.ones((2, 3, 3)))
    assert song.tolist() == [1, 2]


def test_held_out_songs_that_are_too_short_hold_no_more_silence_than_they_do():
    corpus = corpus_of([melody(walk(np.random.default_rng(18), length)) for length in [64] * 6 + [20, 30, 40]], ROLL)
    found = summarise(np.stack([melody(walk(np.random.default_rng(19), 64))]), corpus)
    assert (found["silence"]["held_out"], found["notes_per_step"]["held_out"]) == (0.0, 1.0)


def test_a_cap_on_excerpts_takes_them_from_the_whole_split():
    cut, song = excerpts(split_of([np.zeros((8, 1), np.uint8) for _ in range(100)]), 4, most=10)
    assert len(cut) == 10
    assert song.min() == 0
    assert song.max() == 99


def corpus_of(songs, spec):
    third = len(songs) // 3
    parts = {"train": songs[: 2 * third], "valid": songs[2 * third :], "test": songs[2 * third :]}
    return Corpus("made", spec, {name: split_of(part) for name, part in parts.items()}, (), "")


def test_excerpts_of_long_songs_are_fewer():
    split = Split(np.zeros((1_200_000, 1), np.uint8), np.full(300, 4000))
    cut, song = excerpts(split, 4000)
    assert cut.shape == (125, 4000, 1)
    assert (song[0], song[-1]) == (0, 299)


def test_held_out_music_lies_inside_and_noise_outside_the_range_of_train():
    generator = np.random.default_rng(10)
    corpus = corpus_of([melody(walk(generator, 130), steps_each=2) for _ in range(60)], ROLL)
    alike = np.stack([melody(walk(generator, 32), steps_each=2) for _ in range(64)])
    noise = (generator.random((64, 64, PITCHES)) < 0.5).astype(np.uint8)
    found = summarise(alike, corpus)
    assert found["copied_ngrams"]["samples"] < 0.01
    assert all(row["inside"] for name, row in found.items() if name != "copied_ngrams")
    assert found["polyphony"]["held_out"] == 1.0
    assert not summarise(noise, corpus)["polyphony"]["inside"]


def test_a_summary_is_json_even_where_statistics_have_no_meaning():
    corpus = corpus_of([melody(walk(np.random.default_rng(11), 8)) for _ in range(6)], ROLL)
    found = summarise(np.zeros((4, 2, PITCHES), np.uint8), corpus)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["self_similarity"] == {
        "samples": None,
        "train_p5": None,
        "train_p95": None,
        "held_out": None,
        "inside": None,
    }


def test_a_summary_of_64_samples_against_350_songs_takes_seconds_at_most():
    generator = np.random.default_rng(12)
    songs = [(generator.random((240, 2 * PITCHES)) < 0.04).astype(np.uint8) for _ in range(525)]
    corpus = corpus_of(songs, ROLL_ONSET)
    started = time.process_time()
    summarise((generator.random((64, 64, 2 * PITCHES)) < 0.04).astype(np.uint8), corpus)
    assert time.process_time() - started < 10  # 0.7 s on an idle machine of 2 cores


def test_correlation_distance_equals_its_formula():
    generator = np.random.default_rng(13)
    a, b = generator.normal(size=(50, 4)), generator.normal(size=(30, 4)) @ generator.normal(size=(4, 4))
    one, two = np.corrcoef(a.T), np.corrcoef(b.T)
    expected = 1 - np.trace(one @ two) / np.linalg.norm(one) / np.linalg.norm(two)
    assert correlation_distance(a, b) == pytest.approx(expected, abs=1e-12)


def test_correlation_distance_ignores_offset_and_scale():
    rows = np.random.default_rng(14).normal(size=(50, 4))
    assert correlation_distance(rows, 3 + 5 * rows) == pytest.approx(0.0, abs=1e-12)


def rows_of(generator, n, mix):
    return [row[None].astype(np.float32) for row in generator.normal(size=(n, 5)) @ mix]


def test_rows_from_the_same_distribution_lie_inside_and_others_outside():
    generator = np.random.default_rng(15)
    mix = generator.normal(size=(5, 5))
    corpus = corpus_of(rows_of(generator, 900, mix), REAL)
    alike = np.stack(rows_of(generator, 64, mix))
    other = np.stack(rows_of(generator, 64, 4 * np.eye(5)))
    assert summarise(alike, corpus)["correlation_distance"]["inside"]
    assert summarise(alike, corpus)["std"]["inside"]
    assert not summarise(other, corpus)["correlation_distance"]["inside"]
    assert not summarise(other, corpus)["std"]["inside"]


def test_a_summary_of_binary_arrays_that_are_not_music_has_moments():
    generator = np.random.default_rng(16)
    songs = [(generator.random((8, 6)) < 0.25).astype(np.uint8) for _ in range(300)]
    spec = DataSpec("binary", 6, 1, None, 100.0, 8, 8)
    found = summarise(np.stack(songs[:64]), corpus_of(songs, spec))
    assert found["mean"]["samples"] == pytest.approx(0.25, abs=0.05)
    assert found["mean"]["inside"]


def test_a_summary_is_the_same_twice():
    generator = np.random.default_rng(17)
    corpus = corpus_of(rows_of(generator, 90, np.eye(5)), REAL)
    samples = np.stack(rows_of(generator, 16, np.eye(5)))
    assert summarise(samples, corpus) == summarise(samples, corpus)

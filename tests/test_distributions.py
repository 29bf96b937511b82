"""vae.distributions: oracles of the densities, limits and invariances of the comparison."""

import json
import math
import time

import numpy as np
import pytest
from music import tune
from scipy import integrate, stats
from scipy.spatial.distance import cdist, pdist

from vae.corpus import Corpus, Split
from vae.distributions import (
    MOST_EXCERPTS,
    compare,
    distances,
    histograms,
    log_density,
    overlap_and_kl,
    pooled_overlap,
    scale_consistency,
)
from vae.encoding import LOWEST_PITCH, PITCHES, DataSpec, Song, decode, encode
from vae.errors import UserError
from vae.statistics import NGRAM, excerpts, measure, melody_ngrams, sounding_and_onsets

T = 64
ROLL = DataSpec("roll", PITCHES, 4, 16, 100.0, T, 640)
ROLL_ONSET = DataSpec("roll_onset", 2 * PITCHES, 4, 16, 100.0, T, 640)
DISTRIBUTIONS = ("pitch_class", "interval", "duration", "polyphony")
C_MAJOR = [60, 62, 64, 65, 67, 69, 71]


def piece(seed, transpose=0):
    """16 beats of a melody over a bass, in notes of a beat but for some of the melody, drawn out."""
    notes = tune(seed, notes=T // 4, transpose=transpose)
    lengths = np.random.default_rng(seed).choice([1, 2, 3, 4], len(notes))
    notes[:, 2] = notes[:, 1] + np.where(notes[:, 0] >= 66 + transpose, lengths, 4)
    return encode(Song("made", notes, T, 100.0, 16), "roll_onset")


def pieces(seeds, transpose=0):
    return np.stack([piece(seed, transpose) for seed in seeds])


def roll_of(notes):
    return encode(Song("made", np.array(notes, np.int32), T, 100.0, 16), "roll_onset")


def split_of(songs):
    return Split(np.concatenate(songs), np.array([len(song) for song in songs]))


def corpus_of(train, test, spec=ROLL_ONSET):
    splits = {"train": split_of(train), "valid": split_of(test), "test": split_of(test)}
    return Corpus("made", spec, splits, (), "")


@pytest.fixture(scope="module")
def corpus():
    return corpus_of(pieces(range(100, 160)), pieces(range(200, 250)))


def noise(n, share=0.05):
    return (np.random.default_rng(0).random((n, T, 2 * PITCHES)) < share).astype(np.uint8)


def two_sets(seed, shift=0.0, scale=1.0):
    generator = np.random.default_rng(seed)
    return generator.gamma(9.0, 0.05, 300), shift + scale * generator.gamma(9.0, 0.05, 400)


# features


def test_notes_on_the_grid_fall_into_the_bins_of_their_pitch_classes_and_durations():
    lengths = [1, 2, 3, 4, 6, 8, 12, 16]  # steps of a quarter beat
    starts = np.cumsum([0, *lengths[:-1]])
    roll = roll_of([(60 + i, start, start + n) for i, (start, n) in enumerate(zip(starts, lengths, strict=True))])
    found = histograms(roll[None], ROLL_ONSET)
    assert found["pitch_class"][0].tolist() == [1] * 8 + [0] * 4
    # 1/4, 1/2, 3/4, 1, 3/2, 2, 3 and 4 beats: 2 log2 of them is -4, -2, -0.8, 0, 1.2, 2, 3.2 and 4
    assert found["duration"][0].tolist() == [0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0]
    assert found["polyphony"][0].tolist() == [T - sum(lengths), sum(lengths)] + [0] * 9


def test_durations_are_beats_whatever_the_grid():
    coarse, fine = np.zeros((1, 8, PITCHES), np.uint8), np.zeros((1, 24, PITCHES), np.uint8)
    coarse[0, 2:5, 40] = 1
    fine[0, 6:15, 40] = 1
    low, high = DataSpec("roll", PITCHES, 4, 16, 100.0, 8, 8), DataSpec("roll", PITCHES, 12, 48, 100.0, 24, 24)
    assert np.array_equal(histograms(coarse, low)["duration"], histograms(fine, high)["duration"])


@pytest.mark.parametrize("spec", [ROLL, ROLL_ONSET])
def test_intervals_are_those_of_the_melody_whose_ngrams_are_counted(spec):
    rolls = (np.random.default_rng(1).random((5, T, spec.features)) < 0.02).astype(np.uint8)
    found = histograms(rolls, spec)["interval"]
    for counts, ngrams in zip(found, melody_ngrams(sounding_and_onsets(rolls, spec)[1]), strict=True):
        digits = ngrams[:, None] // (2 * PITCHES) ** np.arange(NGRAM - 1) % (2 * PITCHES) - PITCHES
        intervals = np.concatenate([digits[0], digits[1:, -1]])
        assert counts.tolist() == np.bincount(intervals.clip(-12, 12) + 12, minlength=25).tolist()


def test_leaps_and_chords_beyond_the_last_bin_count_in_it():
    roll = roll_of([(40, 4, 5), (100, 5, 6), (40, 6, 7), *((60 + i, 8, 9) for i in range(15))])
    found = histograms(roll[None], ROLL_ONSET)
    assert found["interval"][0, [0, -1]].tolist() == [1, 2]
    assert found["polyphony"][0, -1] == 1


def test_an_octave_up_changes_no_histogram():
    low, high = histograms(pieces(range(5)), ROLL_ONSET), histograms(pieces(range(5), 12), ROLL_ONSET)
    assert all(np.array_equal(low[name], high[name]) for name in DISTRIBUTIONS)


# scale consistency


def consistency(pitches):
    return scale_consistency(np.bincount(np.array(pitches) % 12, minlength=12)[None].astype(float))[0]


@pytest.mark.parametrize(
    ("pitches", "expected"),
    [
        (C_MAJOR, 1.0),
        ([p + 3 for p in C_MAJOR], 1.0),
        ([57, 59, 60, 62, 64, 65, 67], 1.0),  # A minor
        ([57, 59, 60, 62, 64, 65, 68], 6 / 7),  # its harmonic form leaves every natural scale
        (list(range(60, 72)), 7 / 12),
        ([60, 60, 60, 61, 62], 4 / 5),  # no scale has C, C sharp and D
    ],
)
def test_scale_consistency_is_the_share_of_notes_in_the_best_scale(pitches, expected):
    assert consistency(pitches) == pytest.approx(expected, abs=1e-12)


def test_silence_has_no_scale():
    assert math.isnan(scale_consistency(np.zeros((1, 12)))[0])


def test_statistics_equal_muspys():
    muspy = pytest.importorskip("muspy", reason="MusPy, an oracle, is not installed: pip install muspy==0.5.0")
    rolls = noise(20, 0.01)
    found = measure(rolls, ROLL_ONSET)
    found["scale_consistency"] = scale_consistency(histograms(rolls, ROLL_ONSET)["pitch_class"])
    for i, roll in enumerate(rolls):
        notes = [muspy.Note(start, pitch, end - start) for pitch, start, end in decode(roll, "roll_onset").tolist()]
        music = muspy.Music(resolution=4, tracks=[muspy.Track(notes=notes)])
        assert found["scale_consistency"][i] == pytest.approx(muspy.scale_consistency(music), abs=1e-12)
        assert found["pitch_class_entropy"][i] == pytest.approx(muspy.pitch_class_entropy(music), abs=1e-12)
        assert found["polyphony"][i] == pytest.approx(muspy.polyphony(music), abs=1e-12)


# densities


def test_distances_equal_scipys_and_leave_empty_histograms_out():
    generator = np.random.default_rng(2)
    a, b = generator.random((7, 5)), generator.random((4, 5))
    p, q = a / a.sum(axis=1, keepdims=True), b / b.sum(axis=1, keepdims=True)
    empty = np.zeros((2, 5))
    assert distances(a, b) == pytest.approx(cdist(p, q).ravel(), abs=1e-12)
    assert distances(a) == pytest.approx(pdist(p), abs=1e-12)
    assert np.array_equal(distances(np.concatenate([a, empty])), distances(a))


def test_the_density_equals_scipys_gaussian_kde():
    values, _ = two_sets(3)
    at = np.linspace(-0.5, 2.0, 101)
    assert log_density(values, at) == pytest.approx(stats.gaussian_kde(values).logpdf(at), rel=1e-9, abs=1e-9)


def test_the_log_of_the_density_is_finite_where_the_density_is_0():
    values, _ = two_sets(3)
    assert stats.gaussian_kde(values)(50.0) == 0
    assert np.isfinite(log_density(values, np.array([50.0]))).all()


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.2, 1.0), (-0.1, 1.5), (0.3, 0.05)])
def test_overlap_and_kl_equal_integrals_of_scipys_densities(shift, scale):
    intra, inter = two_sets(4, shift, scale)
    p, q = stats.gaussian_kde(intra), stats.gaussian_kde(inter)
    low, high = min(intra.min(), inter.min()) - 1, max(intra.max(), inter.max()) + 1
    at = np.linspace(low, high, 4001)
    area = integrate.trapezoid(np.minimum(p(at), q(at)), at)
    divergence = integrate.trapezoid(p(at) * (p.logpdf(at) - q.logpdf(at)), at)
    overlap, kl = overlap_and_kl(intra, inter)
    assert overlap == pytest.approx(area, abs=5e-4)
    assert kl == pytest.approx(divergence, rel=1e-3, abs=5e-4)


def test_kl_equals_scipys_entropy_on_common_points():
    intra, inter = two_sets(5, 0.1)
    at = np.linspace(-0.5, 2.0, 5001)
    expected = stats.entropy(stats.gaussian_kde(intra)(at), stats.gaussian_kde(inter)(at))
    assert overlap_and_kl(intra, inter)[1] == pytest.approx(expected, rel=1e-3, abs=5e-4)


@pytest.mark.parametrize("shift", [0.25, 0.5, 1.0])  # farther apart, the thinner tails of an estimate tell
def test_overlap_and_kl_of_normal_distances_are_those_of_normal_densities(shift):
    values = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
    width = math.sqrt(1 + 2000**-0.4)  # the kernels widen them
    overlap, kl = overlap_and_kl(values, values + shift)
    assert overlap == pytest.approx(2 * stats.norm.cdf(-shift / width / 2), abs=2e-3)
    assert kl == pytest.approx((shift / width) ** 2 / 2, rel=0.02)


def test_equal_distances_overlap_wholly_and_diverge_nowhere():
    values, _ = two_sets(6)
    overlap, kl = overlap_and_kl(values, values)
    assert overlap == pytest.approx(1.0, abs=1e-4)
    assert kl == pytest.approx(0.0, abs=1e-9)


def test_distances_far_apart_do_not_overlap_and_diverge_finitely():
    values, _ = two_sets(7)
    overlap, kl = overlap_and_kl(values, values + 1000)
    assert overlap == 0.0
    assert 1e6 < kl < math.inf


def test_the_unit_of_distance_does_not_matter():
    intra, inter = two_sets(8, 0.1)
    assert overlap_and_kl(100 * intra, 100 * inter) == pytest.approx(overlap_and_kl(intra, inter), rel=1e-9)


@pytest.mark.parametrize("degenerate", [[], [0.5], [0.5, 0.5, 0.5], [0.1 + 0.2, 0.3, 0.3]])
def test_fewer_than_two_or_equal_distances_have_no_density(degenerate):
    values, _ = two_sets(9)
    assert overlap_and_kl(values, np.array(degenerate)) == (None, None)
    assert overlap_and_kl(np.array(degenerate), values) == (None, None)


def test_the_pooled_overlap_is_one_less_half_the_l1_distance():
    a, b = np.array([[1.0, 3.0, 0.0], [0.0, 4.0, 0.0]]), np.array([[5.0, 0.0, 5.0]])
    assert pooled_overlap(a, b) == pytest.approx(1 - 0.5 * (3 / 8 + 7 / 8 + 4 / 8), abs=1e-12)
    assert pooled_overlap(a, 3 * a[::-1]) == pytest.approx(1.0, abs=1e-12)
    assert pooled_overlap(a, np.zeros((2, 3))) is None


# comparison


def test_the_test_set_itself_as_samples_is_as_good_as_can_be():
    test = pieces(range(300, 450))
    found = compare(test, corpus_of(pieces(range(2)), test))
    for name in DISTRIBUTIONS:
        assert found["distributions"][name]["overlap"] > 0.96  # an excerpt's distance to itself, 0, is among these
        assert found["distributions"][name]["kl"] < 0.02
        assert found["distributions"][name]["pooled_overlap"] == 1.0
    assert all(row["samples"] == row["test"] for row in found["statistics"].values())


def test_music_of_the_same_kind_does_as_well_as_train_and_noise_worse(corpus):
    alike, other = compare(pieces(range(40)), corpus), compare(noise(40), corpus)
    for name in DISTRIBUTIONS:
        good, bad = alike["distributions"][name], other["distributions"][name]
        assert good["overlap"] == pytest.approx(good["train_overlap"], abs=0.1)
        assert good["pooled_overlap"] == pytest.approx(good["train_pooled_overlap"], abs=0.1)
        assert bad["overlap"] < good["overlap"] - 0.1
        assert bad["kl"] > good["kl"]
        assert bad["pooled_overlap"] < good["pooled_overlap"]
        assert {key: bad[key] for key in bad if "train" in key} == {key: good[key] for key in good if "train" in key}


def test_the_yardstick_is_what_as_many_excerpts_of_train_would_get_as_samples(corpus):
    of_train, _ = excerpts(corpus.splits["train"], T, 10)
    for row in compare(of_train, corpus)["distributions"].values():
        for name in ("overlap", "kl", "pooled_overlap"):
            assert row[name] == row[f"train_{name}"]


def test_statistics_are_means_beside_those_of_test_and_train(corpus):
    found = compare(pieces(range(30)), corpus)["statistics"]
    rolls = {"samples": pieces(range(30)), "test": pieces(range(200, 250)), "train": pieces(range(100, 160))}
    assert set(found) == {*measure(rolls["test"], ROLL_ONSET), "scale_consistency", "copied_ngrams"}
    for split, of_split in rolls.items():
        for name, values in measure(of_split, ROLL_ONSET).items():
            assert found[name][split] == pytest.approx(values.mean(), abs=1e-12)
    entropies = measure(rolls["train"], ROLL_ONSET)["pitch_class_entropy"]
    assert found["pitch_class_entropy"]["train_p5"] == pytest.approx(np.percentile(entropies, 5), abs=1e-12)
    assert found["pitch_class_entropy"]["train_p95"] == pytest.approx(np.percentile(entropies, 95), abs=1e-12)


def test_samples_taken_from_train_are_all_copied_and_train_is_not_copied_from_itself(corpus):
    copied = compare(pieces(range(100, 110)), corpus)["statistics"]["copied_ngrams"]
    assert copied["samples"] == 1.0
    assert copied["test"] < 0.05
    assert copied["train"] < 0.05


def numbers(found):
    return [value for part in ("statistics", "distributions") for row in found[part].values() for value in row.values()]


def test_the_order_of_samples_and_of_songs_does_not_matter(corpus):
    samples, test = pieces(range(30)), pieces(range(200, 250))
    turned = corpus_of(pieces(range(100, 160)), test[::-1])
    assert numbers(compare(samples[::-1], turned)) == pytest.approx(numbers(compare(samples, corpus)), abs=1e-9)


def test_transposing_everything_by_an_octave_changes_nothing(corpus):
    higher = corpus_of(pieces(range(100, 160), 12), pieces(range(200, 250), 12))
    assert compare(pieces(range(30), 12), higher) == compare(pieces(range(30)), corpus)


def test_samples_longer_than_a_window_are_compared_with_excerpts_as_long():
    songs = [np.concatenate([piece(2 * seed), piece(2 * seed + 1)]) for seed in range(12)]
    samples = np.stack([np.concatenate([piece(seed), piece(seed + 50)]) for seed in range(100, 105)])
    found = compare(samples, corpus_of(songs[:6], songs[6:]))
    assert found["excerpts"] == {"samples": 5, "test": 6, "train": 6, "steps": 2 * T}


def test_a_comparison_is_the_same_twice(corpus):
    assert compare(noise(20), corpus) == compare(noise(20), corpus)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((0, T, 2 * PITCHES), np.uint8),
        np.zeros((3, T, 2 * PITCHES), np.uint8),
        np.zeros((3, 1, 2 * PITCHES), np.uint8),
        np.ones((3, T, 2 * PITCHES), np.uint8),
        pieces([0]),
        pieces([0, 0, 0]),
    ],
    ids=["none", "silence", "one step", "all keys", "a single one", "the same ones"],
)
def test_a_comparison_is_json_whatever_the_samples(samples, corpus):
    found = compare(samples, corpus)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_silence_has_no_distribution_of_notes_but_one_of_polyphony(corpus):
    found = compare(np.zeros((3, T, 2 * PITCHES), np.uint8), corpus)
    for name in ("pitch_class", "interval", "duration"):
        row = found["distributions"][name]
        assert (row["overlap"], row["kl"], row["pooled_overlap"]) == (None, None, None)
    assert found["distributions"]["polyphony"]["pooled_overlap"] < 0.5
    assert found["statistics"]["scale_consistency"]["samples"] is None
    assert found["statistics"]["silence"]["samples"] == 1.0


def test_a_single_test_excerpt_or_equal_ones_leave_the_pooled_overlap_alone():
    for test in (pieces([7]), pieces([7, 7, 7])):
        for row in compare(pieces(range(5)), corpus_of(pieces(range(20, 25)), test))["distributions"].values():
            assert (row["overlap"], row["kl"], row["train_overlap"], row["train_kl"]) == (None, None, None, None)
            assert 0 < row["pooled_overlap"] <= 1


def test_data_that_are_not_music_are_refused():
    values = np.zeros((4, T, 6), np.uint8)
    spec = DataSpec("binary", 6, 1, None, 100.0, T, T)
    with pytest.raises(UserError, match="made: only music has these statistics, found binary data"):
        compare(values, corpus_of(values, values, spec))


def test_the_cost_of_large_sets_is_bounded():
    songs = noise(300, 0.03)
    started = time.process_time()
    found = compare(noise(300, 0.03), corpus_of(songs, songs))
    assert time.process_time() - started < 15  # 2 s on an idle machine of 2 cores
    assert set(found["excerpts"].values()) == {MOST_EXCERPTS, T}


def test_the_lowest_key_is_an_a():
    roll = np.zeros((1, T, PITCHES), np.uint8)
    roll[0, 5, 0] = 1
    assert histograms(roll, ROLL)["pitch_class"][0].argmax() == LOWEST_PITCH % 12 == 9

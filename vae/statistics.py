"""What samples are like beside the data: musical statistics of piano rolls, moments of other arrays.

Shape letters: N excerpts, T time steps, P the 88 keys, D features, B beats. A statistic is one number an
excerpt, NaN where it has no meaning (the pitch classes of silence).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vae.corpus import Corpus, Split
from vae.encoding import LOWEST_PITCH, PITCHES, DataSpec

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

NGRAM = 8
"""Consecutive melody notes in an n-gram: seven intervals."""

_MOST_EXCERPTS, _MOST_STEPS = 1000, 500_000
"""Of a split: percentiles are as good as from more, and a summary takes a second or two, and half a gibibyte."""
_DRAWS = 50  # random groups of training rows, for the spread that groups of this size have by chance


def sounding_and_onsets(excerpts: Array, spec: DataSpec) -> tuple[Bools, Bools]:
    """Keys that sound and keys that are struck, as `vae.encoding.decode` has it.

    A key is struck where it sounds but did not in the step before (the first step follows silence), and, in
    `roll_onset`, where it sounds and its onset bit is set.

    Args:
        excerpts: [N, T, D], 0 and 1.
        spec: whose encoding is `roll` or `roll_onset`.

    Returns:
        Two arrays [N, T, P].
    """
    sounding = excerpts[..., :PITCHES] > 0
    onsets = sounding.copy()
    onsets[:, 1:] &= ~sounding[:, :-1]
    if spec.encoding == "roll_onset":
        onsets |= sounding & (excerpts[..., PITCHES:] > 0)
    return sounding, onsets


def notes_per_step(onsets: Bools) -> Floats:
    """Keys struck, divided by time steps: [N, T, P] to [N]."""
    return np.asarray(onsets.sum(axis=(1, 2)) / onsets.shape[1], np.float64)


def silence(sounding: Bools) -> Floats:
    """The share of time steps in which no key sounds: [N, T, P] to [N]."""
    return np.asarray((~sounding.any(axis=2)).mean(axis=1), np.float64)


def polyphony(sounding: Bools) -> Floats:
    """Keys that sound at once, the mean over the steps in which any does: [N, T, P] to [N].

    As in pypianoroll and MusPy (Dong et al. 2020). NaN for silence.
    """
    busy = sounding.any(axis=2).sum(axis=1)
    return ratio(sounding.sum(axis=(1, 2)), busy)


def pitch_class_entropy(onsets: Bools) -> Floats:
    """How evenly notes spread over the 12 pitch classes, in bits: [N, T, P] to [N].

    H = -sum_c p_c log2 p_c, p_c the share of onsets in pitch class c (Wu & Yang 2020, the Jazz Transformer;
    there a bar at a time). 0 for one class, log2 12 = 3.58 for all alike. NaN for silence.
    """
    counts = chroma(onsets.sum(axis=1, dtype=np.float64))
    shares = ratio(counts, counts.sum(axis=-1, keepdims=True))
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(-(shares * logs).sum(axis=-1), np.float64)


def self_similarity(sounding: Bools, steps_per_beat: int) -> Floats:
    """How nearly an excerpt repeats itself, 0 to 1: [N, T, P] to [N].

    max over lags l = 2 .. B/2 of the mean over beats b of cos(c_b, c_(b+l)), where c_b counts the steps
    that each pitch class sounds in beat b: the strongest diagonal of Foote's self-similarity matrix (1999).
    A lag of one beat is left out, since any held chord would win it. A bar played twice has 1, and so has a
    drone; transposing everything, or a voice by octaves, changes nothing. Pairs of silent beats do not count;
    a silent and a sounding beat have cosine 0. NaN for fewer than 4 beats and for silence.
    """
    beats = sounding.shape[1] // steps_per_beat
    if beats < 4:
        return np.full(len(sounding), np.nan)
    whole = sounding[:, : beats * steps_per_beat].reshape(len(sounding), beats, steps_per_beat, PITCHES)
    classes = chroma(whole.sum(axis=2, dtype=np.float64))  # [N, B, 12]
    norm = np.linalg.norm(classes, axis=-1, keepdims=True)
    unit = np.divide(classes, norm, out=np.zeros_like(classes), where=norm > 0)
    pairs = beats - np.arange(2, beats // 2 + 1) - np.rint(_at_lags(np.asarray(norm == 0, np.float64)))  # both silent
    return np.asarray(np.fmax.reduce(ratio(_at_lags(unit), pairs), axis=1).clip(0.0, 1.0), np.float64)


def _at_lags(beats: Floats) -> Floats:
    """Sums over b of the products of beat b and beat b + l, lags l = 2 .. B/2: [N, B, C] to [N, lags].

    By Fourier transforms, since a sum at each lag takes minutes where songs are long.
    """
    count = beats.shape[1]
    spectrum = np.fft.rfft(beats, 2 * count, axis=1)  # padded, or the end would meet the beginning
    power = np.square(np.abs(spectrum)).sum(axis=2)
    return np.fft.irfft(power, 2 * count, axis=1)[:, 2 : count // 2 + 1]


def melody_ngrams(onsets: Bools) -> list[npt.NDArray[np.int64]]:
    """N-grams of `NGRAM` melody notes as numbers, equal where all intervals are: [N, T, P] to N arrays.

    Intervals only, so a transposed or rhythmically altered copy is still a copy.
    """
    return [_ngrams(intervals) for intervals in melody_intervals(onsets)]


def melody_intervals(onsets: Bools) -> list[npt.NDArray[np.int64]]:
    """Semitones from each note of the melody to the next: [N, T, P] to N arrays.

    The melody is the skyline: the highest key struck in each step that has one. The first step is left out, since a
    window can't tell whether its keys begin there; so the intervals of a window are among those of its song.
    """
    struck: Bools = np.asarray(onsets[:, 1:].any(axis=2))
    top = PITCHES - 1 - onsets[:, 1:, ::-1].argmax(axis=2)
    return [np.diff(notes[where]) for notes, where in zip(top, struck, strict=True)]


def _ngrams(intervals: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    if len(intervals) < NGRAM - 1:
        return np.zeros(0, np.int64)
    weights = (2 * PITCHES) ** np.arange(NGRAM - 1, dtype=np.int64)  # 176^7 < 2^63: no two n-grams share a number
    return np.lib.stride_tricks.sliding_window_view(intervals + PITCHES, NGRAM - 1) @ weights


class Library:
    """The melodies of a training set, to tell what samples copy."""

    def __init__(self, train: Split, spec: DataSpec) -> None:
        self._spec = spec
        self._of_song = [np.unique(ngrams) for ngrams in _song_ngrams(train, spec)]
        together = np.concatenate([np.zeros(0, np.int64), *self._of_song])
        self._known, self._songs_with = np.unique(together, return_counts=True)

    def measure(self, excerpts: Array, song: npt.NDArray[np.int64] | None = None) -> dict[str, Floats]:
        """All musical statistics, [N, T, D] to a name's [N]: `measure`, and `copied_ngrams`; `song` as of `copied`."""
        ngrams = melody_ngrams(sounding_and_onsets(excerpts, self._spec)[1])
        return {**measure(excerpts, self._spec), "copied_ngrams": self.copied(ngrams, song)}

    def copied(self, ngrams: list[npt.NDArray[np.int64]], song: npt.NDArray[np.int64] | None = None) -> Floats:
        """The share of each excerpt's n-grams that training songs contain too; NaN for an excerpt with none.

        Args:
            ngrams: of N excerpts.
            song: [N], the training song that each excerpt comes from, which is then left out: what any song
                shares with the others is the yardstick for what samples share with all.
        """
        shares = np.full(len(ngrams), np.nan)
        for i, mine in enumerate(ngrams):
            found = self._count(mine)
            if song is not None:
                found -= np.isin(mine, self._of_song[song[i]])
            if len(mine):
                shares[i] = (found > 0).mean()
        return shares

    def _count(self, ngrams: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many songs have each n-gram."""
        if not len(self._known):
            return np.zeros(len(ngrams), np.int64)
        place = np.searchsorted(self._known, ngrams).clip(max=len(self._known) - 1)
        return np.where(self._known[place] == ngrams, self._songs_with[place], 0)


def _song_ngrams(train: Split, spec: DataSpec) -> list[npt.NDArray[np.int64]]:
    return [melody_ngrams(sounding_and_onsets(song[None], spec)[1])[0] for song in train.songs()]


def measure(excerpts: Array, spec: DataSpec) -> dict[str, Floats]:
    """The musical statistics that need no training set: [N, T, D] to a name's [N]."""
    sounding, onsets = sounding_and_onsets(excerpts, spec)
    return {
        "notes_per_step": notes_per_step(onsets),
        "polyphony": polyphony(sounding),
        "silence": silence(sounding),
        "pitch_class_entropy": pitch_class_entropy(onsets),
        "self_similarity": self_similarity(sounding, spec.steps_per_beat),
    }


def excerpts(split: Split, window: int, most: int = _MOST_EXCERPTS) -> tuple[Array, npt.NDArray[np.int64]]:
    """Cuts songs into full windows end to end, at most `most` of them, evenly from all songs.

    Songs shorter than a window are skipped; if all are, windows are as long as the median song.

    Returns:
        [N, T, D] of the split's dtype, and the song of each, [N].
    """
    if 0 < split.lengths.max(initial=0) < window:
        window = int(np.median(split.lengths))
    counts = split.lengths // window
    song = np.repeat(np.arange(len(counts)), counts)
    index = np.arange(len(song)) - np.repeat(np.cumsum(counts) - counts, counts)
    count = min(most, len(song), max(1, _MOST_STEPS // window))
    chosen = np.unique(np.linspace(0, len(song) - 1, count).astype(np.int64))
    song, index = song[chosen], index[chosen]
    rows = ((np.cumsum(split.lengths) - split.lengths)[song] + index * window)[:, None] + np.arange(window)
    return split.values[rows], song


def summarise(samples: Array, corpus: Corpus) -> dict[str, Any]:
    """Statistics of samples beside those of the data, JSON-ready.

    Args:
        samples: [N, T, D], as `vae.pieces.draw` gives them.
        corpus: the data that the model was trained on.

    Returns:
        By statistic: `samples` (the mean), `train_p5` and `train_p95`, `held_out` (the mean of the validation
        split) and `inside` (whether train_p5 <= samples <= train_p95); None where it has no meaning.
    """
    train, valid = corpus.splits["train"], corpus.splits["valid"]
    describe = describe_music if corpus.spec.is_music else describe_values
    return describe(samples, train, valid, corpus.spec)


def describe_music(samples: Array, train: Split, valid: Split, spec: DataSpec) -> dict[str, Any]:
    """`summarise` for piano rolls: percentiles over single excerpts of train as long as the samples.

    Shorter where all songs are, see `excerpts`.

    `copied_ngrams` of a training excerpt leaves its own song out.
    """
    window = samples.shape[1]
    known, song = excerpts(train, window)
    held_out, _ = excerpts(valid, window)
    library = Library(train, spec)
    drawn, yardstick, unseen = library.measure(samples), library.measure(known, song), library.measure(held_out)
    return {name: _compare(drawn[name], yardstick[name], unseen[name]) for name in drawn}


def describe_values(samples: Array, train: Split, valid: Split, spec: DataSpec) -> dict[str, Any]:
    """`summarise` for other arrays: percentiles over random groups of train, each as large as the samples.

    `mean` and `std` are averages over features; `correlation_distance` is that to train's correlations.
    Samples of real data are means without noise, so their `std` runs low.
    """
    del spec
    window, generator = samples.shape[1], np.random.default_rng(0)
    known, _ = excerpts(train, window)
    held_out, _ = excerpts(valid, window)
    reference = _rows(known)
    size = min(len(samples), len(known))
    groups = [known[generator.choice(len(known), size, replace=False)] for _ in range(_DRAWS)]
    measures: dict[str, Callable[[Floats], float]] = {
        "mean": lambda rows: float(rows.mean()),
        "std": lambda rows: float(rows.std(axis=0).mean()),
        "correlation_distance": lambda rows: correlation_distance(rows, reference),
    }
    return {
        name: _compare(
            np.array([value(_rows(samples))]),
            np.array([value(_rows(group)) for group in groups]),
            np.array([value(_rows(held_out[:size]))]),
        )
        for name, value in measures.items()
    }


def correlation_distance(a: Floats, b: Floats) -> float:
    """How far apart the features' correlations are in two sets of rows, [., D]: 0 for equal ones, at most 1.

    1 - tr(R_a R_b) / (|R_a| |R_b|), Frobenius norms (Herdin et al. 2005). A constant feature correlates with
    nothing. NaN if all are constant.
    """
    a, b = _standardised(a), _standardised(b)
    # tr(R_a R_b) = |Z_a Z_b'|^2 / (n_a n_b): products of rows, not of D x D matrices, for D may be thousands.
    norms = np.linalg.norm(a @ a.T) * np.linalg.norm(b @ b.T)
    return float(1.0 - np.linalg.norm(a @ b.T) ** 2 / norms) if norms > 0 else float("nan")


def _standardised(rows: Floats) -> Floats:
    centred = rows - rows.mean(axis=0)
    std = centred.std(axis=0)
    return np.asarray(np.divide(centred, std, out=np.zeros_like(centred), where=std > 1e-12), np.float64)


def _rows(units: Array) -> Floats:
    """[N, T, D] to [rows, D], at most `_MOST_EXCERPTS` rows from the front."""
    return units.reshape(-1, units.shape[-1])[:_MOST_EXCERPTS].astype(np.float64)


def chroma(keys: Floats) -> Floats:
    """[..., P] to [..., 12]: sums over octaves."""
    classes = np.eye(12)[(LOWEST_PITCH + np.arange(PITCHES)) % 12]
    return np.asarray(keys @ classes, np.float64)


def ratio(above: Array, below: Array) -> Floats:
    """`above / below`, NaN where `below` is 0."""
    out = np.full(above.shape, np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def _compare(drawn: Floats, yardstick: Floats, held_out: Floats) -> dict[str, Any]:
    low, high = known_percentile(yardstick, 5), known_percentile(yardstick, 95)
    drawn_mean = known_mean(drawn)
    inside = None if drawn_mean is None or low is None or high is None else low <= drawn_mean <= high
    return {
        "samples": drawn_mean,
        "train_p5": low,
        "train_p95": high,
        "held_out": known_mean(held_out),
        "inside": inside,
    }


def known_mean(values: Floats) -> float | None:
    """The mean of what is not NaN; None if nothing is."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def known_percentile(values: Floats, percent: float) -> float | None:
    """A percentile of what is not NaN; None if nothing is."""
    values = values[~np.isnan(values)]
    return float(np.percentile(values, percent)) if len(values) else None

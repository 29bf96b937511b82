"""How samples compare with the test set, train being the yardstick: means of statistics, distributions of features.

Shape letters: N excerpts, T time steps, D features of the encoding, C bins, X points of a density. A feature is
a histogram of one excerpt. As in MGEval (Yang & Lerch 2020, On the evaluation of generative models in music), two
sets are compared by the distances between their excerpts, whatever the feature; see `overlap_and_kl`.
"""

from typing import Any

import numpy as np

from vae.corpus import Corpus, Split
from vae.encoding import DataSpec, decode
from vae.errors import UserError
from vae.statistics import (
    Array,
    Floats,
    Library,
    excerpts,
    known_mean,
    known_percentile,
    melody_intervals,
    ratio,
    sounding_and_onsets,
)

MOST_EXCERPTS = 200
"""Of a set: 40,000 distances between two sets, so that a comparison takes seconds."""
WIDEST_INTERVAL = 12
"""Semitones; wider leaps count as an octave."""
LONGEST_OCTAVE = 3
"""Durations from 2^-3 to 2^3 beats; shorter and longer ones count as these."""
MOST_KEYS = 10
"""More that sound at once count as so many."""

_SCALES = np.array([np.roll(np.isin(np.arange(12), [0, 2, 4, 5, 7, 9, 11]), root) for root in range(12)])
_GRID = 256  # points over each of two densities; the integrals are right to about 1e-4
_TAIL = 5.0  # bandwidths beyond the farthest value; a Gaussian has 3e-7 of its mass there


def scale_consistency(pitch_classes: Floats) -> Floats:
    """The largest share of notes that lie in one scale: counts [N, 12] to [N].

    max over scales s of sum_{c in s} n_c / sum_c n_c, n_c the notes struck in pitch class c (Mogren 2016,
    C-RNN-GAN; MusPy's `scale_consistency`). The 12 major scales are enough, since natural minor ones have the
    same pitch classes. 7/12 for all classes alike. NaN for silence.
    """
    return ratio((pitch_classes @ _SCALES.T).max(axis=1), pitch_classes.sum(axis=1))


def histograms(rolls: Array, spec: DataSpec) -> dict[str, Floats]:
    """The features: [N, T, D] to a name's counts [N, C].

    Notes are those of `vae.encoding.decode`: one that sounds when the excerpt begins or ends begins or ends there.

    - `pitch_class`, C = 12: notes struck, by pitch modulo 12.
    - `interval`, C = 25: steps of the melody in semitones, -12 or less to 12 or more; see
      `vae.statistics.melody_intervals`.
    - `duration`, C = 13: notes by length b in beats, round(2 log2 b) from -6 (1/8) to 6 (8 or more), so that
      dotted lengths have bins of their own.
    - `polyphony`, C = 11: time steps, by the keys that sound, 0 to 10 or more.
    """
    notes = [decode(roll, spec.encoding) for roll in rolls]
    sounding, onsets = sounding_and_onsets(rolls, spec)
    octave, widest = 2 * LONGEST_OCTAVE, WIDEST_INTERVAL
    halves = [np.rint(2 * np.log2((n[:, 2] - n[:, 1]) / spec.steps_per_beat)).astype(np.int64) for n in notes]
    return {
        "pitch_class": _counts([n[:, 0] % 12 for n in notes], 12),
        "interval": _counts([i.clip(-widest, widest) + widest for i in melody_intervals(onsets)], 2 * widest + 1),
        "duration": _counts([half.clip(-octave, octave) + octave for half in halves], 2 * octave + 1),
        "polyphony": _counts(list(sounding.sum(axis=2).clip(max=MOST_KEYS)), MOST_KEYS + 1),
    }


def _counts(bins: list[Array], size: int) -> Floats:
    return np.array([np.bincount(each, minlength=size) for each in bins], np.float64).reshape(-1, size)


def distances(a: Floats, b: Floats | None = None) -> Floats:
    """Euclidean distances between histograms, each scaled to sum 1; histograms that count nothing are left out.

    Args:
        a: counts, [N, C].
        b: counts, [M, C]; without it, the distances within `a`.

    Returns:
        The distance of each pair: [N M] of two sets, [N (N - 1) / 2] within one. MGEval's program has each pair
        of a set twice, which makes its bandwidth 13% narrower.
    """
    first = _shares(a)
    second = first if b is None else _shares(b)
    # |p - q|^2 = |p|^2 + |q|^2 - 2 p q would cancel for near ones.
    apart = np.linalg.norm(first[:, None] - second, axis=-1)
    return np.asarray(apart[np.triu_indices(len(first), 1)] if b is None else apart.ravel(), np.float64)


def log_density(values: Floats, at: Floats) -> Floats:
    """The log of a Gaussian kernel density estimate: of n values, at [X].

    p(x) = 1/n sum_i N(x; v_i, h^2), h = std n^(-1/5), std with n - 1: Scott's rule, as `scipy.stats.gaussian_kde`
    has it. Sums are taken over logs, so that it is finite however far x is. The values must not all be equal.
    """
    bandwidth = _bandwidth(values)
    out = np.empty(len(at))
    for i, x in enumerate(at):  # a row at a time stays in the cache
        exponents = -0.5 * ((values - x) / bandwidth) ** 2
        highest = exponents.max()
        out[i] = highest + np.log(np.exp(exponents - highest).sum())
    return np.asarray(out - np.log(len(values) * bandwidth * np.sqrt(2 * np.pi)), np.float64)


def overlap_and_kl(intra: Floats, inter: Floats) -> tuple[float | None, float | None]:
    """How alike the distances within a reference set and those from another set to it are distributed.

    With p the density of `intra` and q that of `inter`: the overlapped area, integral of min(p, q), 0 to 1; and
    D_KL(p || q) = integral of p log(p / q), in nats, 0 or more (Yang & Lerch 2020). Both integrals are taken at the
    same points, over the tails too; MGEval's program evaluates p and q of its KL at different ones. Where
    there are no distances a density is the tail of a kernel, so a KL of several nats says far apart, not how far.

    Returns:
        Overlap and KL; None and None where either has fewer than 2 values, or equal ones, and so no density.
    """
    if min(len(intra), len(inter)) < 2 or min(np.ptp(intra), np.ptp(inter)) < 1e-9:
        return None, None
    # Points over each alone, or a narrow density would fall between those over both.
    at = np.union1d(_points(intra), _points(inter))
    p, q = log_density(intra, at), log_density(inter, at)
    overlap = np.trapezoid(np.exp(np.minimum(p, q)), at)
    kl = np.trapezoid(np.exp(p) * (p - q), at)
    return min(float(overlap), 1.0), max(float(kl), 0.0)


def pooled_overlap(a: Floats, b: Floats) -> float | None:
    """What two sets have in common when each is one histogram: sum_c min(p_c, q_c), 0 to 1 (Swain & Ballard 1991).

    p and q are the sums over excerpts of the counts [N, C] and [M, C], scaled to 1. Plainer
    than distances, but blind to what each excerpt is like: keys drawn independently at train's rates pass for music
    by their pooled pitch classes. KL is left to the densities, since here an empty bin makes it infinite. None where
    a set counts nothing.
    """
    p, q = _shares(a.sum(axis=0, keepdims=True)), _shares(b.sum(axis=0, keepdims=True))
    return float(np.minimum(p, q).sum()) if len(p) and len(q) else None


def compare(samples: Array, corpus: Corpus) -> dict[str, Any]:
    """Samples beside the test set, and train beside it as the yardstick: what music of the same kind would get.

    Of each set at most `MOST_EXCERPTS` excerpts are taken, evenly, as long as the samples; shorter where all songs
    are, see `vae.statistics.excerpts`. For distributions train gives only as many as there are samples, since overlaps
    and KL depend on the number.

    Args:
        samples: [N, T, D], as `vae.pieces.draw` gives them.
        corpus: the data that the model was trained on; music.

    Returns:
        JSON-ready, None where a number has no meaning. `excerpts`: how many of `samples`, `test` and `train`, and
        the `steps` of a sample. `statistics`, by name: the means `samples`, `test` and `train`, and `train_p5`
        and `train_p95` over its excerpts. `distributions`, by feature: `overlap`, `kl` and `pooled_overlap` of
        samples and test, and `train_overlap`, `train_kl` and `train_pooled_overlap` of train and test.

    Raises:
        UserError: the data are not music.
    """
    spec = corpus.spec
    if not spec.is_music:
        raise UserError(f"{corpus.name}: only music has these statistics, found {spec.encoding} data. Pass music.")
    steps = samples.shape[1]
    pieces = Split(samples.reshape(-1, samples.shape[2]), np.full(len(samples), steps))
    (drawn, _), (test, _), (train, song) = (
        excerpts(split, steps, MOST_EXCERPTS) for split in (pieces, corpus.splits["test"], corpus.splits["train"])
    )
    yardstick, _ = excerpts(corpus.splits["train"], steps, len(drawn))
    counts = [histograms(rolls, spec) for rolls in (drawn, test, yardstick)]
    library = Library(corpus.splits["train"], spec)
    rows = [library.measure(drawn), library.measure(test), library.measure(train, song)]
    for row, rolls in zip(rows, (drawn, test, train), strict=True):
        row["scale_consistency"] = scale_consistency(histograms(rolls, spec)["pitch_class"])
    return {
        "excerpts": {"samples": len(drawn), "test": len(test), "train": len(train), "steps": steps},
        "statistics": {name: _row(*(row[name] for row in rows)) for name in rows[0]},
        "distributions": {name: _distribution(*(count[name] for count in counts)) for name in counts[0]},
    }


def _row(drawn: Floats, test: Floats, train: Floats) -> dict[str, float | None]:
    return {
        "samples": known_mean(drawn),
        "test": known_mean(test),
        "train": known_mean(train),
        "train_p5": known_percentile(train, 5),
        "train_p95": known_percentile(train, 95),
    }


def _distribution(drawn: Floats, test: Floats, train: Floats) -> dict[str, float | None]:
    intra = distances(test)
    overlap, kl = overlap_and_kl(intra, distances(drawn, test))
    train_overlap, train_kl = overlap_and_kl(intra, distances(train, test))
    return {
        "overlap": overlap,
        "kl": kl,
        "pooled_overlap": pooled_overlap(drawn, test),
        "train_overlap": train_overlap,
        "train_kl": train_kl,
        "train_pooled_overlap": pooled_overlap(train, test),
    }


def _shares(counts: Floats) -> Floats:
    """Rows scaled to sum 1, without those that are empty."""
    total = counts.sum(axis=1, keepdims=True)
    heard = total[:, 0] > 0
    return np.asarray(counts[heard] / total[heard], np.float64)


def _bandwidth(values: Floats) -> float:
    return float(values.std(ddof=1) * len(values) ** -0.2)


def _points(values: Floats) -> Floats:
    margin = _TAIL * _bandwidth(values)
    return np.linspace(values.min() - margin, values.max() + margin, _GRID)

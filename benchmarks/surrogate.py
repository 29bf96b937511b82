"""Learning curves of configurations that were never trained, by what was recorded of others (`benchmarks.curves`).

A forest of randomised trees (Geurts et al. 2006) maps hyperparameters to whole curves: the ELBO, the KL, the code gain
and the seconds of each scored epoch. A mean of trees lies between what was recorded, so that nothing would ever be
better than the best of that. So what the forest got wrong about recorded configurations about as good, when those
were held out, is added in random parts, the same whenever a configuration is asked for, and most of them the same for
its neighbours: those that trees of the forest put in one leaf with it. And the difference between two
seeds of one about as good, where those were recorded, another for each seed. Another forest says which fail; they do
when one that was recorded did. How well it ranks configurations that it has not seen is measured by cross-validation,
at each rung.
"""

import hashlib
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.feature_extraction import DictVectorizer
from sklearn.model_selection import KFold

from sweep.replay import Curve, Point
from sweep.rungs import rungs, validates
from vae.ranking import rank_value
from vae.trainer import MAX_EPOCHS

Array = npt.NDArray[np.float64]
EPOCHS = tuple(e for e in range(1, MAX_EPOCHS + 1) if validates(e, rungs(MAX_EPOCHS)))
_METRICS = ("val_elbo", "kl", "code_gain")
_TOP = len(EPOCHS) - 1  # of a vector: the ELBO at the last epoch
_ALIKE = 12  # curves whose error or noise a configuration may have
_SHARED = 3  # parts of four of what the forest gets wrong
_FOLDS = 10
_FAILS = 0.5  # share of trees that must say so


def _vector(curve: dict[str, Any]) -> Array:
    """A recorded curve as [metrics x epochs, and seconds between epochs]; KL and seconds by their logarithms."""
    rows = np.array(curve["epochs"], dtype=float)
    elbo, kl, gain = rows[:, 2], np.log(np.maximum(rows[:, 3], 1e-4)), np.arcsinh(10.0 * rows[:, 4])
    return np.concatenate([elbo, kl, gain, np.log(np.maximum(np.diff(rows[:, 1], prepend=0.0), 1e-3))])


def _as_recorded(curve: dict[str, Any]) -> Curve:
    points = (Point(epoch, at, dict(zip(_METRICS, values, strict=True))) for epoch, at, *values in curve["epochs"])
    return Curve(tuple(points), curve["failure"], curve["seconds"])


def _curve(vector: Array) -> Curve:
    """The inverse of `_vector`."""
    elbo, kl, gain, seconds = np.split(vector, 4)
    columns = zip(elbo, np.exp(kl), np.sinh(gain) / 10.0, strict=True)
    spent = np.cumsum(np.exp(seconds))
    points = [dict(zip(_METRICS, map(float, row), strict=True)) for row in columns]
    return Curve(tuple(Point(e, float(s), m) for e, s, m in zip(EPOCHS, spent, points, strict=True)))


class Surrogate:
    """Curves for any configuration.

    Args:
        curves: as recorded, all of one data set and one epoch length.
        trees: in the forest.
    """

    def __init__(self, curves: list[dict[str, Any]], trees: int = 64) -> None:
        self._vectorizer, self._trees = DictVectorizer(sparse=False), trees
        first = [curve for curve in curves if curve["seed"] == 0]
        features = self._vectorizer.fit_transform([curve["params"] for curve in first])
        failed = np.array([curve["failure"] is not None for curve in first])
        self._whole = features[~failed]
        self._vectors = np.stack([_vector(curve) for curve in first if curve["failure"] is None])
        self._known: dict[str, list[Curve]] = {}
        for curve in curves:
            self._known.setdefault(_key(curve["params"]), []).append(_as_recorded(curve))
        self.noise, self._noise_of = _noise(curves)
        self._forest = self._fit(self._whole, self._vectors)
        self._held_out = self._cross_validated()
        self._errors = self._vectors - self._held_out
        self._failures = self._fit(features, failed.astype(float)) if failed.any() else None
        self._failed = [_as_recorded(curve) for curve in first if curve["failure"] is not None]

    def _fit(self, features: Array, targets: Array) -> ExtraTreesRegressor:
        forest = ExtraTreesRegressor(self._trees, min_samples_leaf=1, max_features=0.5, random_state=0)
        return forest.fit(features, targets)

    def _cross_validated(self) -> Array:
        """What is predicted of each recorded configuration by the others."""
        predicted = np.empty_like(self._vectors)
        for fit, held_out in KFold(_FOLDS, shuffle=True, random_state=0).split(self._whole):
            predicted[held_out] = self._fit(self._whole[fit], self._vectors[fit]).predict(self._whole[held_out])
        return predicted

    def curve(self, params: dict[str, Any], seed: int = 0) -> Curve:
        """The curve of a configuration: of those recorded one, if it was. The seed draws which, or the noise."""
        key = _key(params)
        generator = _generator(f"{seed} {key}")
        if recorded := self._known.get(key):
            return recorded[generator.integers(len(recorded))]
        features = self._vectorizer.transform([params])
        mean = self._forest.predict(features)[0]
        vector = mean + self._missed(mean, features, key)
        if len(self.noise):
            noise = self.noise[generator.choice(_alike(self._noise_of, mean))]
            vector = vector + noise * generator.choice((-1.0, 1.0))
        curve = _curve(vector)
        if self._failures is None or self._failures.predict(features)[0] <= _FAILS:
            return curve
        like = self._failed[generator.integers(len(self._failed))]
        return replace(like, points=curve.points[: len(like.points)])

    def _missed(self, mean: Array, features: Array, key: str) -> Array:
        """What a forest gets wrong about a configuration: of as much variance as about those recorded.

        A part hangs on the configuration alone, the others on where trees put it; each is one of the errors, the first
        of those alike in an order of its own, so that neighbours whose means differ a little have the same.
        """
        alike = _alike(self._held_out[:, _TOP], mean)
        leaves = [tree.apply(features.astype(np.float32))[0] for tree in self._forest.estimators_[:_SHARED]]
        orders = [_generator(f"{number} {leaf}") for number, leaf in enumerate(leaves)] + [_generator(key)]
        parts = [alike[np.argmin(order.random(len(self._errors))[alike])] for order in orders]
        return self._errors[parts].sum(axis=0) / math.sqrt(len(parts))

    def rank_correlations(self, min_kl: float) -> dict[int, float]:
        """Spearman's, between true and predicted rank values at each rung, of configurations held out in turn.

        Args:
            min_kl: the floor of the rank value, nats a time step.
        """
        true, predicted = self._vectors, self._held_out
        return {
            epoch: float(spearmanr(_values(true, epoch, min_kl), _values(predicted, epoch, min_kl)).statistic)
            for epoch in rungs(MAX_EPOCHS)
        }


def _key(params: dict[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


def _generator(words: str) -> np.random.Generator:
    """The same for the same words."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "little"))


def _alike(tops: Array, vector: Array) -> npt.NDArray[np.intp]:
    """Whose ELBO at the last epoch is nearest."""
    return np.argsort(np.abs(tops - vector[_TOP]))[:_ALIKE]


def _values(vectors: Array, epoch: int, min_kl: float) -> list[float]:
    """Rank values at an epoch."""
    points = [_curve(vector).points[EPOCHS.index(epoch)] for vector in vectors]
    return [rank_value(point.metrics, min_kl) for point in points]


def _noise(curves: list[dict[str, Any]]) -> tuple[Array, Array]:
    """What a seed adds to the mean of its configuration, and that mean's ELBO at the top; seconds have none."""
    seeds: dict[int, list[Array]] = {}
    for curve in curves:
        if curve["failure"] is None:
            seeds.setdefault(curve["number"], []).append(_vector(curve))
    parts, means = [np.empty((0, 4 * len(EPOCHS)))], []
    for vectors in seeds.values():
        if len(vectors) > 1:
            mean = np.mean(vectors, axis=0)
            parts.append((np.stack(vectors) - mean) * np.sqrt(len(vectors) / (len(vectors) - 1)))
            means += [mean[_TOP]] * len(vectors)
    noise = np.concatenate(parts)
    noise[:, 3 * len(EPOCHS) :] = 0.0
    return noise, np.array(means)

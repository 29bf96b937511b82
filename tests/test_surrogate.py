"""Curves of configurations that were never trained."""

import numpy as np
import pytest

from benchmarks.surrogate import EPOCHS, Surrogate

pytestmark = pytest.mark.filterwarnings("default::FutureWarning")


def recorded(number, seed=0, failure=None):
    """A curve whose worth depends on the learning rate, and a little on the seed."""
    rate = 10.0 ** np.random.default_rng(number).uniform(-4, -2)
    family = ("dense", "recurrent")[number % 2]
    height = -5.0 - abs(np.log10(rate) + 3.0) - (family == "dense") + 0.01 * seed
    epochs = [[e, 2.0 * e, height - 2.0 / e, 0.12, 0.3] for e in EPOCHS]
    params = {"family": family, "learning_rate": rate}
    return {
        "number": number,
        "seed": seed,
        "params": params,
        "epochs": epochs if failure is None else epochs[:2],
        "seconds": 60.0 if failure is None else 5.0,
        "failure": failure,
    }


def test_a_recorded_configuration_has_its_own_curve():
    curves = [recorded(number) for number in range(12)]
    curve = Surrogate(curves, trees=30).curve(curves[3]["params"])
    assert [point.epoch for point in curve.points] == list(EPOCHS)
    for point, (_, seconds, elbo, kl, gain) in zip(curve.points, curves[3]["epochs"], strict=True):
        found = (point.seconds, *(point.metrics[name] for name in ("val_elbo", "kl", "code_gain")))
        assert found == pytest.approx((seconds, elbo, kl, gain), rel=1e-9)


def test_a_configuration_recorded_on_several_seeds_has_the_curve_of_any():
    curves = [recorded(number) for number in range(12)] + [recorded(3, seed=1), recorded(3, seed=2)]
    surrogate = Surrogate(curves, trees=30)
    finals = {surrogate.curve(curves[3]["params"], seed).points[-1].metrics["val_elbo"] for seed in range(20)}
    assert finals == {curve["epochs"][-1][2] for curve in curves if curve["number"] == 3}


def test_others_lie_near_those_that_are_like_them():
    surrogate = Surrogate([recorded(number) for number in range(60)], trees=30)
    good, bad = (surrogate.curve({"family": "recurrent", "learning_rate": rate}) for rate in (1.01e-3, 1.05e-4))
    assert good.points[-1].metrics["val_elbo"] > bad.points[-1].metrics["val_elbo"] + 0.3
    assert all(value > 0.8 for value in surrogate.rank_correlations(0.1).values())


def uneven(number, kind):
    """A curve of a worth that nothing tells."""
    curve, luck = recorded(number), np.random.default_rng((kind, number)).normal()
    return {**curve, "epochs": [[e, at, elbo + luck, *others] for e, at, elbo, *others in curve["epochs"]]}


def test_what_was_never_trained_can_be_better_than_all_that_was():
    """Of forty recorded and another the other is the best as often as any, were they draws of one kind."""
    better, spread = [], []
    for kind in range(6):
        curves = [uneven(number, kind) for number in range(40)]
        surrogate, tops = Surrogate(curves, trees=30), [curve["epochs"][-1][2] for curve in curves]
        news = [
            surrogate.curve(recorded(number)["params"]).points[-1].metrics["val_elbo"] for number in range(100, 200)
        ]
        better.append(np.mean(np.array(news) > max(tops)))
        spread.append(np.std(news) / np.std(tops))
    assert 0.005 < np.mean(better) < 0.06
    assert np.mean(spread) == pytest.approx(1.0, abs=0.3)


def test_neighbours_have_most_of_their_luck_in_common():
    surrogate = Surrogate([uneven(number, 0) for number in range(40)], trees=30)

    def top(number, times):
        params = recorded(number)["params"]
        params["learning_rate"] *= times
        return surrogate.curve(params).points[-1].metrics["val_elbo"]

    pairs = np.array([[top(number, times) for times in (1.0, 1.0001)] for number in range(100, 200)])
    apart = np.std(pairs[:, 0] - pairs[:, 1]) / np.std(pairs[:, 0] - np.roll(pairs[:, 1], 1))
    assert 0.3 < apart < 0.7  # a quarter of the variance is each one's own


def test_noise_is_what_seeds_differ_by_and_the_same_for_the_same_seed():
    curves = [recorded(number) for number in range(20)] + [recorded(number, seed=1) for number in range(5)]
    surrogate, params = Surrogate(curves, trees=30), {"family": "dense", "learning_rate": 2e-3}
    finals = [surrogate.curve(params, seed).points[-1].metrics["val_elbo"] for seed in (1, 1, 2, 3, 4, 5)]
    assert finals[0] == finals[1]
    assert 0.001 < np.ptp(finals) < 0.03  # half of 0.01 each way, times the root of two


def test_a_region_that_failed_fails():
    def failing(number):
        curve = recorded(number)
        return recorded(number, failure="diverged") if curve["params"]["learning_rate"] > 3e-3 else curve

    surrogate = Surrogate([failing(number) for number in range(60)], trees=30)
    failed = surrogate.curve({"family": "dense", "learning_rate": 8e-3})
    assert (failed.failure, len(failed.points), failed.seconds) == ("diverged", 2, 5.0)
    assert surrogate.curve({"family": "dense", "learning_rate": 5e-4}).failure is None

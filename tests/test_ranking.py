"""vae.ranking: values by hand, and what goes before what."""

import itertools
import math

import pytest

from vae.ranking import is_feasible, rank_key, rank_value


def test_rank_by_hand():
    metrics = {"val_elbo": -8.0, "kl": 0.04}
    assert rank_value(metrics, min_kl=0.1) == pytest.approx(-8.6)
    assert rank_value(metrics, min_kl=0.04) == -8.0
    assert rank_value(metrics, min_kl=0.0) == -8.0


@pytest.mark.parametrize(
    ("kl", "code_gain", "feasible"),
    [(0.1, 0.05, True), (0.099, 1.0, False), (1.0, 0.049, False), (1.0, -3.0, False), (math.nan, 1.0, False)],
)
def test_feasibility_by_hand(kl, code_gain, feasible):
    assert is_feasible({"kl": kl, "code_gain": code_gain}, min_kl=0.1) == feasible


def test_without_a_floor_nothing_is_asked_of_the_code():
    silent, speaking = (
        {"val_elbo": value, "kl": kl, "code_gain": kl - 1e-6} for value, kl in ((-2.0, 0.0), (-3.0, 0.2))
    )
    assert is_feasible(silent, min_kl=0.0)
    assert rank_key(silent, min_kl=0.0) > rank_key(speaking, min_kl=0.0)
    assert rank_key(silent, min_kl=0.1) < rank_key(speaking, min_kl=0.1)


def test_what_is_feasible_goes_first_then_the_rank():
    best_first = [
        {"val_elbo": -9.0, "kl": 0.2, "code_gain": 0.1},
        {"val_elbo": -9.5, "kl": 5.0, "code_gain": 0.1},
        {"val_elbo": -2.0, "kl": 0.2, "code_gain": 0.0},  # says nothing
        {"val_elbo": -2.0, "kl": 0.0, "code_gain": 0.1},  # a kl too small costs a nat
    ]
    for better, worse in itertools.combinations(best_first, 2):
        assert rank_key(better, min_kl=0.1) > rank_key(worse, min_kl=0.1)

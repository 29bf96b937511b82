"""The search space."""

from dataclasses import replace

import optuna
import pytest

from sweep import space
from vae.config import FAMILY_NAMES, Config
from vae.encoding import DataSpec

SPEC = DataSpec("roll", 88, 1, None, 100.0, window=16, longest_song=64)
SIZES = {"dense": {"dense_width", "dense_depth"}, "recurrent": {"rnn_width", "rnn_layers"}}


def draws(count, families=FAMILY_NAMES):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask(), families, 16) for _ in range(count)]


def test_every_draw_is_a_config_that_can_be_built():
    for params in draws(200):
        assert Config.for_data(SPEC, params).family == params["family"]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_trial_draws_the_sizes_of_its_own_family_only(family):
    others = set().union(*(names for name, names in SIZES.items() if name != family))
    for params in draws(20, (family,)):
        assert params["family"] == family
        assert SIZES[family] <= set(params)
        assert not others & set(params)


def test_schedules_have_lengths_only_where_there_is_a_schedule():
    params = draws(100)
    assert {"lr_decay" in p for p in params} == {True, False}
    assert {"beta_warmup" in p for p in params} == {True, False}


@pytest.mark.parametrize("families", [("dense",), ("recurrent",), FAMILY_NAMES])
def test_the_first_points_are_drawn_as_they_stand(families):
    study = optuna.create_study()
    for point in space.first_points(families):
        study.enqueue_trial(point)
    for point in space.first_points(families):
        trial = study.ask()
        space.suggest(trial, families, 16)
        assert trial.params == point


def test_the_first_point_of_dense_is_the_seeds_model():
    study = optuna.create_study()
    study.enqueue_trial(space.first_points(("dense",))[0])
    config = Config.for_data(SPEC, space.suggest(study.ask(), ("dense",), 16))
    assert (config.dense_width, config.dense_depth, config.latent_dim, config.batch_size) == (256, 3, 100, 64)


def test_an_epoch_has_as_many_optimizer_steps_whatever_the_window():
    study = optuna.create_study()
    study.enqueue_trial({"batch_steps": 512})
    study.enqueue_trial({"batch_steps": 512})
    sizes = [space.suggest(study.ask(), ("dense",), window)["batch_size"] for window in (1, 64)]
    assert sizes == [512, 8]


def test_recurrence_is_not_proposed_for_rows_that_have_no_time():
    assert space.fitting_families(SPEC) == FAMILY_NAMES
    assert space.fitting_families(replace(SPEC, window=1)) == ("dense",)

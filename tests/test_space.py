"""The search space."""

import dataclasses
import logging
import warnings
from dataclasses import replace

import optuna
import pytest
import torch

from sweep import space
from vae.config import FAMILY_NAMES, Config
from vae.encoding import DataSpec
from vae.models.registry import build_model

ROLL = DataSpec("roll", 88, 1, None, 100.0, window=16, longest_song=64)
MUSIC = DataSpec("roll_onset", 176, 4, 16, 100.0, window=64, longest_song=400)
SPECS = {
    "roll": ROLL,
    "roll_onset with a metre": MUSIC,
    "long songs": replace(MUSIC, longest_song=90_000),
    "one bar": replace(MUSIC, window=16, longest_song=16),
    "binary": DataSpec("binary", 6, 1, None, 100.0, window=8, longest_song=20),
    "long binary": DataSpec("binary", 6, 1, None, 100.0, window=5000, longest_song=5000),
    "rows": DataSpec("real", 5, 1, None, 100.0, window=1, longest_song=1),
    "real songs": DataSpec("real", 5, 1, None, 100.0, window=8, longest_song=20),
}
SIZES = {
    "dense": {"dense_width", "dense_depth"},
    "recurrent": {"rnn_width", "encoder_width", "rnn_layers", "recall_width", "weight_dropout"},
    "hierarchical": {"rnn_width", "encoder_width"},
    "sequential": {"rnn_width", "encoder_width", "rnn_layers", "recall_width", "weight_dropout"},
    "transformer": {"transformer_width", "transformer_layers", "encoder_width"},
}
HORIZON = 27 * 100_000

by_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
by_family = pytest.mark.parametrize("family", FAMILY_NAMES)


def task_of(spec, *families, min_kl=0.1, horizon=HORIZON):
    return space.Task(families or space.fitting_families(spec), spec, min_kl, horizon)


def draws(count, task, seed=0):
    """Trials and the params drawn for them, at random."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trials = [study.ask() for _ in range(count)]
    return [(trial, space.suggest(trial, task)) for trial in trials]


def params_of(task, point):
    """What a point is drawn as."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(point)
    trial = study.ask()
    return trial, space.suggest(trial, task)


@by_spec
@pytest.mark.parametrize("min_kl", [0.1, 0.0])
def test_every_draw_is_a_config_and_a_model_that_can_be_built(spec, min_kl):
    task = task_of(spec, min_kl=min_kl)
    drawn = draws(60, task)
    for _, params in drawn:
        config = Config.for_data(spec, params)
        assert {name: getattr(config, name) for name in params} == params
        with torch.device("meta"):  # shapes alone
            build_model(config, spec)
    assert {params["family"] for _, params in drawn} == set(task.families)


@by_family
def test_a_trial_draws_the_sizes_of_its_own_family_alone(family):
    others = set().union(*SIZES.values()) - SIZES[family]
    for _, params in draws(30, task_of(MUSIC, family)):
        assert params["family"] == family
        assert SIZES[family] <= set(params)
        assert not others & set(params)


def test_a_drawn_name_has_one_range_whatever_else_is_drawn():
    """TPE keeps to the range that it met first, so another one would never be searched whole."""
    ranges = {}
    for trial, _ in draws(300, task_of(MUSIC)):
        for name, distribution in trial.distributions.items():
            assert ranges.setdefault(name, distribution) == distribution
    assert {"latent_dim", "sequential_latent_dim", "transformer_window"} <= set(ranges)


def test_families_that_cannot_take_the_data_are_not_proposed():
    bars = tuple(name for name in FAMILY_NAMES if name != "hierarchical")
    fitting = {name: space.fitting_families(spec) for name, spec in SPECS.items()}
    assert fitting == {
        "roll": bars,
        "roll_onset with a metre": FAMILY_NAMES,
        "long songs": FAMILY_NAMES,
        "one bar": bars,
        "binary": bars,
        "long binary": bars,
        "rows": ("dense",),
        "real songs": bars,
    }
    assert "hierarchical" in space.fitting_families(replace(ROLL, steps_per_bar=8))
    assert "hierarchical" not in space.fitting_families(replace(ROLL, steps_per_bar=9))


def test_windows_are_the_datas_unit_four_of_them_and_whole_songs():
    found = {family: space.windows(family, MUSIC) for family in FAMILY_NAMES}
    assert found == {
        "dense": (64,),
        "recurrent": (64, 256, 400),
        "hierarchical": (64,),
        "sequential": (400,),
        "transformer": (64, 256, 400),
    }
    assert space.windows("recurrent", SPECS["long songs"]) == (64, 256, 4096)
    assert space.windows("recurrent", SPECS["long binary"]) == (256, 4096)
    assert space.windows("recurrent", SPECS["binary"]) == (8, 20)
    assert space.windows("recurrent", SPECS["rows"]) == (1,)
    assert space.windows("sequential", SPECS["long songs"]) == (4096,)


def test_parts_of_songs_are_no_longer_than_songs():
    assert space.crops(MUSIC) == (256, 400)
    assert space.crops(replace(MUSIC, window=16)) == (256, 400)
    assert space.crops(SPECS["long songs"]) == (256, 1024)
    assert space.crops(SPECS["binary"]) == (20,)
    for _, params in draws(30, task_of(MUSIC)):
        assert ("crop" in params) == (params["family"] == "sequential")


@by_spec
def test_what_only_some_data_have_is_drawn_for_those_alone(spec):
    for _, params in draws(30, task_of(spec)):
        assert ("head_width" in params) == spec.is_binary
        assert ("transpose" in params) == spec.is_music
        assert ("step_dropout" in params) == (params["family"] != "dense")


# What keeps the code alive


def test_what_the_kl_is_held_at_grows_with_the_floor():
    rates = {}
    for floor in (0.1, 0.2):
        drawn = [params for _, params in draws(100, task_of(MUSIC, min_kl=floor))]
        rates[floor] = [params.get("free_bits", 0.0) + params["rate_target"] for params in drawn]
        assert all((params["rate_target"] > 0) != ("free_bits" in params) for params in drawn)
        assert all(floor <= rate <= 2.5 * floor for rate in rates[floor])
    assert rates[0.2] == pytest.approx([2 * rate for rate in rates[0.1]], abs=1e-5)


def test_without_a_floor_nothing_holds_the_kl():
    for _, params in draws(100, task_of(MUSIC, min_kl=0.0)):
        config = Config.for_data(MUSIC, params)
        assert config.rate_target == config.free_bits == 0.0


def test_beta_has_a_schedule_only_where_it_is_not_controlled():
    drawn = [params for _, params in draws(200, task_of(MUSIC))]
    kinds = {(params["rate_target"] > 0, "beta_warmup" in params, "beta_cycle" in params) for params in drawn}
    assert kinds == {(True, False, False), (False, False, False), (False, True, False), (False, True, True)}


def test_a_cosine_ends_with_the_last_epoch():
    falls = set()
    for horizon in (HORIZON, 1000):
        for _, params in draws(100, task_of(MUSIC, horizon=horizon)):
            falls.add("lr_decay" in params)
            if "lr_decay" in params:
                assert params["lr_decay"] == horizon
            assert Config.for_data(MUSIC, params).lr_decay == params.get("lr_decay", 0)
    assert falls == {True, False}


def test_a_stretched_cosine_ends_with_the_longer_training_and_nothing_else_changes():
    for _, params in draws(50, task_of(MUSIC)):
        assert space.stretched(params, HORIZON) == params
        longer = space.stretched(params, 2 * HORIZON)
        assert longer.keys() == params.keys()
        changed = {name for name in params if longer[name] != params[name]}
        assert changed == {"lr_decay"} & params.keys()
        if changed:
            assert longer["lr_decay"] == 2 * HORIZON


@pytest.mark.parametrize(("horizon", "most"), [(10**7, 2000), (HORIZON, 659), (9 * 30_000, 65), (1000, 50)])
def test_beta_has_risen_by_the_middle_of_the_training_however_short_the_sweep(horizon, most):
    drawn = [params for _, params in draws(300, task_of(MUSIC, horizon=horizon))]
    rises = {params["beta_warmup"] for params in drawn if "beta_warmup" in params}
    assert min(rises) >= 50
    assert 0.9 * most <= max(rises) <= most


# First points


@by_spec
def test_first_points_are_drawn_as_they_stand(spec):
    task = task_of(spec)
    points = space.first_points(task)
    assert sorted(point["family"] for point in points) == sorted(task.families)
    for point in points:
        trial, _ = params_of(task, point)
        assert {name: point[name] for name in trial.params} == trial.params


def test_what_tends_to_win_is_tried_before_the_rest():
    order = [point["family"] for point in space.first_points(task_of(MUSIC))]
    assert order == ["sequential", "recurrent", "transformer", "dense", "hierarchical"]
    assert [point["family"] for point in space.first_points(task_of(MUSIC, "dense", "recurrent"))] == order[1:4:2]


@by_spec
def test_first_points_are_the_families_defaults_with_the_rate_above_the_floor(spec):
    for point in space.first_points(task_of(spec)):
        _, params = params_of(task_of(spec, min_kl=0.2), point)
        defaults = Config.for_data(spec, {"family": point["family"]}, HORIZON)
        assert Config.for_data(spec, params) == dataclasses.replace(defaults, rate_target=0.24)


def test_a_floor_however_high_gives_rates_that_a_config_takes():
    for _, params in draws(5, task_of(MUSIC, min_kl=90.0)):
        assert 90.0 <= max(params["rate_target"], params.get("free_bits", 0.0)) <= 100.0


def test_hierarchical_windows_are_whole_bars():
    waltz = replace(MUSIC, steps_per_bar=12)
    assert space.windows("hierarchical", waltz) == (60,)
    assert Config.for_data(waltz, {"family": "hierarchical"}).window == 60


def test_bars_of_which_no_window_holds_two_are_none():
    long = replace(MUSIC, window=6000, longest_song=6000, steps_per_bar=2048)
    assert space.windows("hierarchical", long) == (4096,)
    assert "hierarchical" in space.fitting_families(long)
    assert "hierarchical" not in space.fitting_families(replace(long, steps_per_bar=2049))


# Optuna


def test_optuna_has_nothing_to_warn_of(caplog):
    task = task_of(MUSIC)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.logging.enable_propagation()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group`; all others are errors
            sampler = optuna.samplers.TPESampler(seed=0, multivariate=True, group=True, constant_liar=True)
        study = optuna.create_study(sampler=sampler, direction="maximize")
        for point in space.first_points(task):
            study.enqueue_trial(point)
        for number in range(60):
            trial = study.ask()
            params = space.suggest(trial, task)
            Config.for_data(MUSIC, params)
            study.tell(trial, -abs(params["learning_rate"] - 1e-3) - (number % 7))
    finally:
        optuna.logging.disable_propagation()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

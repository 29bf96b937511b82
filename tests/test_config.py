"""vae.config: every value in its range, alone, together and for the data; every error names the field."""

import dataclasses
import json
import math
from dataclasses import replace

import pytest
import torch

from sweep.space import batches
from vae.config import FAMILY_NAMES, MOST_HEAD_WIDTH, Config, kl_as_wide, steps_as_wide, whole_bars, widest_dense
from vae.encoding import DataSpec
from vae.errors import UserError
from vae.models.registry import FAMILIES, build_model

NUMBERS = [field for field in dataclasses.fields(Config) if "low" in field.metadata]
CHOICES = [field for field in dataclasses.fields(Config) if "names" in field.metadata]
COMPANIONS = {
    "free_bits": {"rate_target": 0.0},
    "beta_warmup": {"rate_target": 0.0},
    "beta_cycle": {"rate_target": 0.0, "beta_warmup": 1},
    "transformer_width": {"transformer_heads": 1},
}
"""What the ends of a field's range need of other fields."""

BINARY = DataSpec("binary", 6, 1, None, 100.0, window=8, longest_song=20)
REAL = DataSpec("real", 5, 1, None, 100.0, window=1, longest_song=1)
MUSIC = DataSpec("roll_onset", 176, 4, 16, 100.0, window=64, longest_song=400)
LONG = replace(MUSIC, longest_song=90_000)


def test_every_field_is_a_number_or_a_choice():
    assert len(NUMBERS) + len(CHOICES) == len(dataclasses.fields(Config))


def test_every_family_is_registered():
    assert tuple(FAMILIES) == FAMILY_NAMES


# One value


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_ends_of_a_range_are_inside_and_what_lies_beyond_is_refused(field):
    others = COMPANIONS.get(field.name, {})
    for end in (field.metadata["low"], field.metadata["high"]):
        assert getattr(Config(**{**others, field.name: end}), field.name) == end
    for beyond in (field.metadata["low"] - 1, field.metadata["high"] + 1):
        with pytest.raises(UserError, match=rf"^{field.name} must lie in .*\.\..* \(.+\), but got {beyond}\.$"):
            Config(**{**others, field.name: beyond})


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
@pytest.mark.parametrize("value", [True, "1", None, [1]])
def test_what_is_no_number_is_refused(field, value):
    with pytest.raises(UserError, match=rf"^{field.name} must be a (whole )?number, but got "):
        Config(**{field.name: value})


@pytest.mark.parametrize("name", ["learning_rate", "dropout", "ema", "beta", "free_bits", "grad_clip", "rate_target"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(name, value):
    with pytest.raises(UserError, match=rf"^{name} must lie in .*, but got (nan|-?inf)\.$"):
        Config(**{name: value})


def test_a_fraction_is_no_count():
    with pytest.raises(UserError, match=r"^latent_dim must be a whole number, but got 64\.0\.$"):
        Config(latent_dim=64.0)


@pytest.mark.parametrize("field", CHOICES, ids=lambda field: field.name)
@pytest.mark.parametrize("value", ["Dense", "", None, 3])
def test_a_word_that_is_no_choice_is_refused(field, value):
    names = ", ".join(field.metadata["names"])
    with pytest.raises(UserError, match=rf"^{field.name} must be one of {names}, but got "):
        Config(**{field.name: value})


# Values together


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"transformer_width": 36, "transformer_heads": 4},
            r"^transformer_width must be a multiple of twice transformer_heads, but got 36 and 4\.$",
        ),
        ({"recall_width": 65}, r"^recall_width must be even, but got 65\.$"),
        (
            {"rate_target": 0.1, "free_bits": 0.2},
            r"^rate_target steers beta, so free_bits and beta_warmup must be 0, but got 0\.2 and 0\.$",
        ),
        (
            {"rate_target": 0.1, "beta_warmup": 50},
            r"^rate_target steers beta, so free_bits and beta_warmup must be 0, but got 0 and 50\.$",
        ),
        (
            {"beta_cycle": 100},
            r"^beta_cycle repeats beta_warmup, which must lie in 1\.\.100, but got 0\.$",
        ),
        (
            {"beta_cycle": 100, "beta_warmup": 101, "rate_target": 0.0},
            r"^beta_cycle repeats beta_warmup, which must lie in 1\.\.100, but got 101\.$",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(params, message):
    with pytest.raises(UserError, match=message):
        Config(**params)


def test_values_that_go_together_are_taken():
    Config(transformer_width=40, transformer_heads=4)
    Config(beta_cycle=100, beta_warmup=100, free_bits=0.1, rate_target=0.0)


@pytest.mark.parametrize("params", [{"free_bits": 0.2}, {"beta_warmup": 50}, {"beta_warmup": 5, "beta_cycle": 9}])
def test_free_bits_or_a_warm_up_take_the_place_of_the_default_rate_target(params):
    """Someone who asks for one way to keep the code alive did not ask for the other."""
    config = Config.for_data(BINARY, params)
    assert config.rate_target == 0.0
    assert {name: getattr(config, name) for name in params} == params
    with pytest.raises(UserError, match=r"^rate_target steers beta"):
        Config.for_data(BINARY, params | {"rate_target": 0.1})


def test_nothing_else_takes_the_place_of_the_rate_target():
    for params in ({}, {"free_bits": 0.0}, {"beta_warmup": 0}, {"beta": 2.0}):
        assert Config.for_data(BINARY, params).rate_target == Config.rate_target > 0
    assert Config.parse(BINARY, "dense", ["free_bits=0.2"]).rate_target == 0.0


# Values and data


@pytest.mark.parametrize("family", ["recurrent", "sequential", "transformer"])
def test_a_window_may_be_as_long_as_the_longest_song_and_no_longer(family):
    assert Config.for_data(BINARY, {"family": family, "window": 20}).window == 20
    with pytest.raises(
        UserError, match=r"^window must not be longer than the longest song \(20 steps\), but got 21\.$"
    ):
        Config.for_data(BINARY, {"family": family, "window": 21})


@pytest.mark.parametrize(
    ("spec", "params", "message"),
    [
        (REAL, {"head": "autoregressive"}, r"^head must be independent for real data, but got 'autoregressive'\.$"),
        (BINARY, {"transpose": 1}, r"^transpose must be 0 for data that are no music, but got 1\.$"),
        (REAL, {"transpose": 6}, r"^transpose must be 0 for data that are no music, but got 6\.$"),
        (BINARY, {"family": "hierarchical"}, r"^family hierarchical needs a metre; pass --steps-per-bar\.$"),
        (
            MUSIC,
            {"family": "hierarchical", "window": 31},
            r"^family hierarchical needs a window of two bars or more \(32 steps\), but window is 31\.$",
        ),
        (
            MUSIC,
            {"family": "hierarchical", "window": 40},
            r"^family hierarchical needs a window of whole bars \(steps_per_bar is 16\), but window is 40\.$",
        ),
    ],
)
def test_what_does_not_fit_the_data_is_refused(spec, params, message):
    with pytest.raises(UserError, match=message):
        Config.for_data(spec, params)


@pytest.mark.parametrize(("steps", "share"), [(0, 0.0), (13_807, 0.5), (62_624, 0.0), (250_000, 0.0)])
def test_of_little_music_more_weights_are_dropped(steps, share):
    spec = replace(MUSIC, train_steps=steps)
    assert Config.for_data(spec, {"family": "sequential"}).weight_dropout == share
    assert Config.for_data(spec, {"family": "sequential", "weight_dropout": 0.1}).weight_dropout == 0.1
    assert Config.for_data(spec, {"family": "transformer"}).weight_dropout == 0.0


@pytest.mark.parametrize(
    ("steps", "share"), [(0, 0.1), (1_000, 0.4), (25_000, 0.4), (75_000, 0.24), (200_000, 0.1), (2_000_000, 0.1)]
)
def test_of_little_music_more_units_are_dropped(steps, share):
    spec = replace(MUSIC, train_steps=steps)
    for family, most in (("sequential", 0.4), ("hierarchical", 0.4), ("transformer", 0.2)):
        config = Config.for_data(spec, {"family": family})
        assert config.dropout == pytest.approx(0.1 + (share - 0.1) / 0.3 * (most - 0.1), abs=0.006)
        assert config.input_dropout == config.head_dropout == pytest.approx(share / 2, abs=0.006)
    assert Config.for_data(spec, {"family": "recurrent", "dropout": 0.3}).dropout == 0.3
    assert Config.for_data(spec, {"family": "dense"}).dropout == 0.0


def test_two_bars_are_enough_to_be_hierarchical():
    assert Config.for_data(MUSIC, {"family": "hierarchical", "window": 32}).window == 32


# Defaults


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("spec", [MUSIC, LONG, BINARY, REAL], ids=["music", "long", "binary", "real"])
def test_defaults_of_every_family_fit_the_data(family, spec):
    if family == "hierarchical" and spec.steps_per_bar is None:
        pytest.skip("bars need a metre")
    config = Config.for_data(spec, {"family": family})
    assert config.family == family
    assert config.head == ("independent" if spec is REAL else "autoregressive")
    assert config.transpose == (6 if spec.is_music else 0)


def test_the_default_window_is_the_datas_unit_for_dense_layers_and_longer_for_sequences():
    windows = {
        family: [Config.for_data(spec, {"family": family}).window for spec in (MUSIC, LONG)] for family in FAMILY_NAMES
    }
    assert windows == {
        "dense": [64, 64],
        "recurrent": [256, 256],
        "hierarchical": [64, 64],
        "sequential": [400, 4096],
        "transformer": [256, 256],
    }
    assert Config.for_data(replace(LONG, window=2000), {"family": "transformer"}).window == 1024
    assert Config.for_data(replace(MUSIC, longest_song=100), {"family": "transformer"}).window == 100
    assert Config.for_data(BINARY, {"window": 5}).window == 5


@pytest.mark.parametrize(("bar", "window"), [(16, 4096), (12, 4092), (3000, 3000), (None, 4096)])
def test_whole_bars_have_an_end_too(bar, window):
    assert whole_bars(replace(LONG, window=6000, steps_per_bar=bar)) == window


@pytest.mark.parametrize(
    ("encoding", "features", "steps"),
    [
        ("binary", 40, 1024),
        ("binary", 784, 128),
        ("binary", 1408, 64),
        ("binary", 10**6, 1),
        ("real", 1408, 64),
        ("roll_onset", 176, 1024),
    ],
)
def test_wide_rows_come_in_smaller_batches(encoding, features, steps):
    """Each may be a whole window of music, and binary keys are scored one after the other."""
    spec = DataSpec(encoding, features, 1, None, 100.0, 1, 1)
    assert Config.for_data(spec, {"family": "dense"}).batch_steps == steps
    assert steps in batches(spec)
    assert steps_as_wide(spec, 1024) == steps


@pytest.mark.parametrize(
    ("encoding", "features", "nats"),
    [
        ("binary", 40, 0.12),
        ("real", 175, 0.12),
        ("real", 1408, 1.92),
        ("binary", 10**8, 48.0),
        ("roll_onset", 176, 0.12),
    ],
)
def test_the_code_of_a_wide_row_says_as_much_as_those_of_the_steps_that_it_stands_for(encoding, features, nats):
    spec = DataSpec(encoding, features, 1, None, 100.0, 1, 1)
    assert Config.for_data(spec, {"family": "dense"}).rate_target == pytest.approx(nats)
    assert kl_as_wide(spec, 0.1) == pytest.approx(nats / 1.2)
    assert Config.for_data(spec, {"family": "dense", "rate_target": 0.3}).rate_target == 0.3


@pytest.mark.parametrize(
    ("spec", "window", "widest"),
    [
        (replace(MUSIC, encoding="roll", features=88, window=16), 16, 1024),
        (MUSIC, 64, 558),
        (replace(MUSIC, steps_per_beat=12, window=192), 192, 224),
        (replace(MUSIC, window=4000, longest_song=4000), 256, 171),
        (DataSpec("real", 22_528, 1, None, 100.0, 1, 1), 1, 474),
        (DataSpec("real", 10**8, 1, None, 100.0, 1, 1), 1, 1),
    ],
)
def test_dense_layers_are_no_wider_than_memory_allows(spec, window, widest):
    """25 million weights: with gradients, AdamW's moments, averages and copies a gibibyte."""
    config = Config.for_data(spec, {"family": "dense"})
    assert (config.window, widest_dense(spec, window), config.dense_width) == (window, widest, min(256, widest))
    most = replace(config, dense_width=widest, dense_depth=4, head_width=MOST_HEAD_WIDTH)
    with torch.device("meta"):
        count = sum(p.numel() for p in build_model(most, spec).parameters())
    assert count < 26_000_000 or widest == 1


def test_what_is_given_comes_before_the_familys_defaults():
    assert Config.for_data(MUSIC, {"family": "recurrent"}).dropout > 0.0
    assert Config.for_data(MUSIC, {"family": "recurrent", "dropout": 0.0, "transpose": 0}).dropout == 0.0
    assert Config.for_data(MUSIC, {"head": "independent", "transpose": 0}).head == "independent"


def test_the_seeds_vae_can_be_asked_for():
    params = {"head": "independent", "transpose": 0, "ema": 0.0, "rate_target": 0.0}
    config = Config.for_data(MUSIC, params)
    assert (config.family, config.dense_width, config.dense_depth, config.latent_dim) == ("dense", 256, 3, 100)
    assert (config.beta, config.free_bits, config.dropout) == (1.0, 0.0, 0.0)


def test_the_learning_rate_falls_to_the_end_of_the_horizon_unless_told_otherwise():
    horizon = 27 * 100_000
    config = Config.for_data(BINARY, {"batch_steps": 500, "lr_warmup": 100}, horizon)
    assert config.lr_decay == horizon
    assert Config.for_data(BINARY, {"lr_decay": 7}, horizon).lr_decay == 7
    assert Config.for_data(BINARY, {"lr_decay": 0}, horizon).lr_decay == 0
    assert Config.for_data(BINARY, {}).lr_decay == 0


# Names and texts


def test_json_round_trip_keeps_every_value():
    config = Config(family="recurrent", beta=1, learning_rate=0.1 + 0.2, latent_dim=7)
    assert Config(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_a_typo_is_answered_by_the_name_it_resembles():
    with pytest.raises(UserError, match=r"^unknown hyperparameter 'laten_dim'; did you mean latent_dim\?$"):
        Config.for_data(BINARY, {"laten_dim": 3})
    with pytest.raises(UserError, match=r"^unknown hyperparameter 'batch_size'; did you mean batch_steps\?$"):
        Config.for_data(BINARY, {"batch_size": 3})
    with pytest.raises(UserError, match=r"^unknown hyperparameter 'zzz'; known: family, window, .*rate_target\.$"):
        Config.for_data(BINARY, {"zzz": 3})


def test_settings_are_read_by_the_type_of_their_field():
    texts = ["latent_dim=8", "beta=2", "learning_rate=3e-4", "window=4", "head=independent"]
    config = Config.parse(BINARY, "recurrent", texts, horizon=4096)
    values = {"latent_dim": 8, "beta": 2.0, "learning_rate": 3e-4, "window": 4, "head": "independent"}
    assert config == Config.for_data(BINARY, {"family": "recurrent", **values}, horizon=4096)
    assert {name: getattr(config, name) for name in values} == values


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("latent_dim", r"^--set takes NAME=VALUE, but got 'latent_dim'\.$"),
        ("latent_dim=8.5", r"^latent_dim must be a whole number, but got '8\.5'\.$"),
        ("latent_dim=", r"^latent_dim must be a whole number, but got ''\.$"),
        ("latent_dim=0", r"^latent_dim must lie in 1\.\.4096 .*, but got 0\.$"),
        ("beta=high", r"^beta must be a number, but got 'high'\.$"),
        ("beta=nan", r"^beta must lie in 0\.\.100 .*, but got nan\.$"),
        ("betta=1", r"^unknown hyperparameter 'betta'; did you mean beta\?$"),
        ("=1", r"^unknown hyperparameter ''; known: "),
        ("family=gan", r"^family must be one of dense, recurrent, .*, but got 'gan'\.$"),
        ("head=nade", r"^head must be one of independent, autoregressive, but got 'nade'\.$"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting, message):
    with pytest.raises(UserError, match=message):
        Config.parse(BINARY, "dense", [setting])

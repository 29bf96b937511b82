"""vae.config: every value in its range, every error names the field."""

import dataclasses
import json
import math

import pytest
from tiny import BINARY, REAL

from vae.config import FAMILY_NAMES, Config
from vae.errors import UserError
from vae.models.registry import FAMILIES

NUMBERS = [field for field in dataclasses.fields(Config) if field.metadata]


def test_defaults_are_the_seeds_vae():
    config = Config()
    assert (config.family, config.dense_width, config.dense_depth, config.latent_dim) == ("dense", 256, 3, 100)
    assert (config.beta, config.free_bits) == (1.0, 0.0)


def test_every_family_is_registered():
    assert tuple(FAMILIES) == FAMILY_NAMES


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_ends_of_a_range_are_inside_and_what_lies_beyond_is_refused(field):
    for end in (field.metadata["low"], field.metadata["high"]):
        assert getattr(Config(**{field.name: end}), field.name) == end
    for beyond in (field.metadata["low"] - 1, field.metadata["high"] + 1):
        with pytest.raises(UserError, match=rf"^{field.name} must lie in .*\.\..* \(.+\), but got {beyond}\.$"):
            Config(**{field.name: beyond})


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
@pytest.mark.parametrize("value", [True, "1", None, [1]])
def test_what_is_no_number_is_refused(field, value):
    with pytest.raises(UserError, match=rf"^{field.name} must be a (whole )?number, but got "):
        Config(**{field.name: value})


@pytest.mark.parametrize("name", ["learning_rate", "dropout", "beta", "free_bits", "grad_clip"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(name, value):
    with pytest.raises(UserError, match=rf"^{name} must lie in .*, but got (nan|-?inf)\.$"):
        Config(**{name: value})


def test_a_fraction_is_no_count():
    with pytest.raises(UserError, match=r"^latent_dim must be a whole number, but got 64\.0\.$"):
        Config(latent_dim=64.0)


@pytest.mark.parametrize("family", ["Dense", "", None, 3])
def test_an_unknown_family_is_refused(family):
    with pytest.raises(UserError, match=r"^family must be one of dense, recurrent, but got "):
        Config(family=family)


def test_json_round_trip_keeps_every_value():
    config = Config(family="recurrent", beta=1, learning_rate=0.1 + 0.2, latent_dim=7)
    assert Config(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_the_window_is_the_datas_unit_unless_given():
    assert Config.for_data(BINARY, {}).window == BINARY.window
    assert Config.for_data(BINARY, {"window": 5}).window == 5
    assert Config.for_data(REAL, {}).window == 1


def test_a_window_may_be_as_long_as_the_longest_song_and_no_longer():
    assert Config.for_data(BINARY, {"window": 20}).window == 20
    with pytest.raises(
        UserError, match=r"^window must not be longer than the longest song \(20 steps\), but got 21\.$"
    ):
        Config.for_data(BINARY, {"window": 21})


def test_a_typo_is_answered_by_the_name_it_resembles():
    with pytest.raises(UserError, match=r"^unknown hyperparameter 'laten_dim'; did you mean latent_dim\?$"):
        Config.for_data(BINARY, {"laten_dim": 3})
    with pytest.raises(UserError, match=r"^unknown hyperparameter 'zzz'; known: family, window, .*free_bits\.$"):
        Config.for_data(BINARY, {"zzz": 3})


def test_settings_are_read_by_the_type_of_their_field():
    config = Config.parse(BINARY, "recurrent", ["latent_dim=8", "beta=2", "learning_rate=3e-4", "window=4"])
    assert config == Config(family="recurrent", latent_dim=8, beta=2.0, learning_rate=3e-4, window=4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("latent_dim", r"^--set takes NAME=VALUE, but got 'latent_dim'\.$"),
        ("latent_dim=8.5", r"^latent_dim must be a whole number, but got '8\.5'\.$"),
        ("latent_dim=", r"^latent_dim must be a whole number, but got ''\.$"),
        ("beta=high", r"^beta must be a number, but got 'high'\.$"),
        ("beta=nan", r"^beta must lie in 0\.\.100 .*, but got nan\.$"),
        ("betta=1", r"^unknown hyperparameter 'betta'; did you mean beta\?$"),
        ("=1", r"^unknown hyperparameter ''; known: "),
        ("family=gan", r"^family must be one of dense, recurrent, but got 'gan'\.$"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting, message):
    with pytest.raises(UserError, match=message):
        Config.parse(BINARY, "dense", [setting])

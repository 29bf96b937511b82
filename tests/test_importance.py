"""Importance of parameters."""

from dataclasses import replace

import optuna
import pytest
from sweeping import SETTINGS, new_folder, open_study, search

from sweep import space
from sweep.earlier import Earlier
from sweep.importance import by_importance, importance
from sweep.reading import TooFewError, read

EPOCHS = 3


def random_draws(count):
    """Configurations that no search has settled on."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for _ in range(count):
        space.suggest(study.ask(), replace(SETTINGS, max_epochs=EPOCHS).task)
    return Earlier("random", [trial.params for trial in study.trials], [], "")


@pytest.fixture
def trials(tmp_path):
    """Reads the trials of a search."""

    def make(count, worth):
        folder = new_folder(tmp_path)
        search(open_study(folder.journal, count, [random_draws(count)], max_epochs=EPOCHS), count, worth)
        return read(folder).trials

    return make


def test_the_parameter_that_decides_comes_first_and_beats_chance(trials):
    drawn = trials(60, lambda record: -5.0 - 10 * record.params["dropout"])
    found = importance(drawn)
    assert next(iter(found.shares)) == "dropout" == by_importance(drawn)[0]
    assert found.shares["dropout"] > found.chance["dropout"]
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert (found.good, found.trials) == (6, 60)


def test_a_parameter_that_only_some_trials_have_counts_too(trials):
    found = importance(trials(60, lambda record: -5.0 - abs(record.params.get("dense_depth", 9) - 2)))
    assert next(iter(found.shares)) in ("dense_depth", "family")
    assert found.shares["dense_depth"] > found.chance["dense_depth"]


def test_too_few_values_are_too_few_however_many_fail(trials):
    drawn = trials(30, lambda record: -5.0 if record.number < 9 else None)
    with pytest.raises(TooFewError, match="15 trials with a value are needed, but there are 9"):
        importance(drawn)
    assert set(by_importance(drawn)) == {name for trial in drawn for name in trial.frozen.params}

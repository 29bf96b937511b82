"""The recorder of learning curves."""

import argparse

import optuna
import pytest

from benchmarks import curves
from benchmarks.contenders.shared import settings_of
from sweep import space
from vae.corpus import load_corpus
from vae.errors import UserError


@pytest.fixture
def args(chords, tmp_path):
    return argparse.Namespace(
        data=str(chords),
        steps_per_bar=None,
        count=2,
        seeds=1,
        epoch_steps=60,
        minutes=10.0,
        workers=1,
        out=tmp_path,
        compatible=[],
    )


@pytest.fixture(scope="module")
def task():
    return settings_of(load_corpus("bach").spec, 60).task


def test_a_configuration_is_the_same_whenever_it_is_drawn_and_defaults_come_first(task):
    assert curves.configuration(7, task) == curves.configuration(7, task)
    assert curves.configuration(7, task) != curves.configuration(8, task)
    assert [curves.configuration(i, task)[1]["family"] for i in range(2)] == ["sequential", "recurrent"]


def test_every_other_configuration_is_a_default_but_for_a_few_parameters(task):
    defaults = [curves.configuration(i, task)[0] for i in range(len(task.families))]

    def nearest(number):
        drawn, params = curves.configuration(number, task)
        assert params == space.suggest(optuna.trial.FixedTrial(drawn), task)
        return min(sum(drawn.get(name) != value for name, value in known.items()) for known in defaults)

    assert all(1 <= nearest(number) <= 6 for number in range(10, 60, 2))  # what hangs on a choice comes on top
    assert sum(nearest(number) > 6 for number in range(11, 61, 2)) > 20


def test_recording_goes_on_where_it_ended(args):
    args.count = 1
    curves.record(args)
    first = curves.read_curves(args.out)
    assert [(curve["number"], curve["failure"]) for curve in first] == [(0, None)]
    epochs = [scored[0] for scored in first[0]["epochs"]]
    assert epochs == [1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27]
    seconds = [scored[1] for scored in first[0]["epochs"]]
    assert seconds == sorted(seconds)
    args.seeds = 2
    curves.record(args)
    both = curves.read_curves(args.out)
    assert [(curve["number"], curve["seed"]) for curve in both] == [(0, 0), (0, 1)]
    assert both[0] == first[0]
    assert both[0]["epochs"][0][2] != both[1]["epochs"][0][2]
    args.epoch_steps = 90
    with pytest.raises(UserError, match="epoch_steps 60, not 90"):
        curves.record(args)


def test_time_that_is_over_ends_it_with_what_is_there(args):
    args.minutes = 0.0
    curves.record(args)
    assert curves.read_curves(args.out) == []


def test_shards_hold_what_was_written(tmp_path):
    made = [{"number": n, "seed": seed, "epochs": []} for n in (0, 49, 50, 130) for seed in (0, 1)]
    curves.write_curves(tmp_path, made)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000.jsonl.gz", "001.jsonl.gz", "002.jsonl.gz"]
    assert curves.read_curves(tmp_path) == made

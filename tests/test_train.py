"""vae.trainer: an epoch's length, learning, what the average is for, divergence."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import CASES, CPU, make_corpus, make_trainer, make_wide_rows, params_of
from training import CYCLING, STEERED, assert_same, make_music_trainer, saved, state

from vae import checkpoint
from vae.bounds import VALIDATION_SEED, evaluate, marginal_elbo
from vae.config import FAMILY_NAMES, Config
from vae.device import gains_by_bf16
from vae.encoding import PITCHES
from vae.trainer import DivergedError, Trainer, TrainingData

FAST = {"learning_rate": 1e-2, "lr_warmup": 5, "ema": 0.9}
WILD = {"learning_rate": 10.0, "lr_warmup": 0, "grad_clip": 1e9}

by_case = pytest.mark.parametrize(("kind", "family"), CASES)
by_family = pytest.mark.parametrize("family", FAMILY_NAMES)


# Epochs


def test_schedules_count_steps_not_epochs():
    trainers = [make_trainer(epoch_steps=steps, lr_decay=2500, beta_warmup=50) for steps in (300, 1200)]
    for _ in range(4):
        short = trainers[0].train_epoch()
    long = trainers[1].train_epoch()
    assert trainers[0].optimizer_step == trainers[1].optimizer_step
    assert (short["learning_rate"], short["beta"]) == (long["learning_rate"], long["beta"])
    assert 0 < short["beta"] < 1
    assert short["val_elbo"] == long["val_elbo"]


@pytest.mark.parametrize("epoch_steps", [50, 400, 2000])  # train has some 450 steps
def test_an_epoch_is_a_number_of_time_steps_whatever_the_corpus_holds(epoch_steps):
    trainer = make_trainer(epoch_steps=epoch_steps)
    for epoch in (1, 2, 3):
        assert trainer.train_epoch()["epoch"] == epoch
        # A batch is never cut; what it is too long by, the next epoch is shorter by.
        assert epoch * epoch_steps <= trainer.steps_seen < epoch * epoch_steps + 50 + 8
    assert trainer.steps_seen / trainer.optimizer_step == pytest.approx(50, rel=0.05)


@pytest.mark.parametrize("batch_steps", [10, 50, 3000])
def test_the_learning_rate_has_fallen_at_the_end_of_its_horizon_however_large_batches_come_out(batch_steps):
    """Those of whole songs hold other numbers of steps than asked for."""
    trainer = make_trainer("binary", "recurrent", window=20, batch_steps=batch_steps, lr_warmup=2, lr_decay=2000)
    rates = [trainer.train_epoch(validate=False)["learning_rate"] for _ in range(7)]
    peak = trainer.config.learning_rate
    assert rates[-1] == pytest.approx(0.02 * peak)
    if batch_steps < 3000:
        half_way = rates[2:4]  # after 900 and 1200 steps
        assert half_way[0] > 0.51 * peak > half_way[1]


def test_an_epoch_of_wide_rows_has_as_many_as_are_as_wide_as_music():
    data = TrainingData.load(make_wide_rows(16 * PITCHES), CPU)
    assert Trainer(Config.for_data(data.corpus.spec, {"dense_width": 4}), data).epoch_steps == 100_000 // 16
    assert make_trainer("real", epoch_steps=300).epoch_steps == 300
    assert Trainer(make_trainer().config, make_trainer().data).epoch_steps == 100_000


def test_wide_rows_are_ranked_by_as_much_higher_a_floor():
    data = TrainingData.load(make_wide_rows(16 * PITCHES), CPU)
    config = Config.for_data(data.corpus.spec, {"dense_width": 4})
    assert Trainer(config, data).min_kl == pytest.approx(1.6)
    assert Trainer(config, data, min_kl=0.0).min_kl == 0.0
    assert make_trainer().min_kl == 0.1


def test_an_epoch_shorter_than_a_batch_is_one_optimizer_step():
    trainer = make_trainer(epoch_steps=1)
    for epoch in (1, 2, 3):
        assert math.isfinite(trainer.train_epoch()["train_elbo"])
        assert trainer.optimizer_step == epoch


def test_a_steered_kl_costs_nothing_under_its_target():
    """Whatever beta has risen to; above the target it presses."""
    weights = {}
    for target in (100.0, 1e-6):
        for pressure in (0.02, 2.0):
            trainer = make_trainer(rate_target=target, beta=2.0)
            trainer._control.beta.fill_(pressure)
            trainer.train_epoch(validate=False)
            weights[target, pressure] = trainer.model.state_dict()
    assert_same(weights[100.0, 0.02], weights[100.0, 2.0])
    with pytest.raises(AssertionError):
        assert_same(weights[1e-6, 0.02], weights[1e-6, 2.0])


@pytest.mark.parametrize("params", [CYCLING, STEERED], ids=["cycling", "steered"])
def test_metrics_are_complete_and_consistent(params):
    metrics = make_trainer(**params).train_epoch()
    assert set(metrics) == {
        *("epoch", "train_log_likelihood", "train_kl", "train_elbo", "beta", "learning_rate"),
        *("examples_per_second", "train_seconds"),
        *("val_elbo", "val_elbo_per_song", "val_log_likelihood", "kl", "code_gain", "active_units"),
    }
    assert metrics["val_elbo"] == pytest.approx(metrics["val_log_likelihood"] - metrics["kl"], rel=1e-9)
    assert metrics["train_elbo"] == pytest.approx(metrics["train_log_likelihood"] - metrics["train_kl"], rel=1e-9)
    assert 0.0 <= metrics["beta"] <= 2.0


# Steering


@pytest.mark.parametrize(
    ("scored", "corrected"),
    [
        (range(1, 14), [1, 2, 3, 6, 9, 12]),
        ([1, 2, 3, 6, 9, 10, 12], [1, 2, 3, 6, 9, 12]),  # of a sweep whose top rung is no multiple of three
        ([1, 5, 7, 10, 11, 13], [1, 5, 10, 13]),  # seldom, and never a multiple of three
        ([], []),
    ],
)
def test_a_rate_target_is_corrected_three_epochs_apart_where_they_are_scored(scored, corrected, monkeypatch):
    trainer, found = make_trainer(epoch_steps=1, rate_target=0.1), []
    monkeypatch.setattr(trainer._control, "correct", lambda *_: found.append(trainer.epoch))
    for epoch in range(1, 14):
        trainer.train_epoch(validate=epoch in scored)
    assert found == corrected


# Learning


@by_case
def test_a_few_epochs_beat_independent_features(kind, family):
    trainer = make_trainer(kind, family, epoch_steps=2000, dense_width=64, rate_target=0.0, **FAST)
    metrics = [trainer.train_epoch() for _ in range(4)]
    marginal = marginal_elbo(trainer.data.moments, trainer.data.corpus.splits["valid"], trainer.data.corpus.spec)
    assert metrics[-1]["val_elbo"] > marginal + 0.3
    assert metrics[-1]["train_elbo"] > metrics[0]["train_elbo"] + 0.1
    assert trainer.best.metrics["val_elbo"] >= metrics[0]["val_elbo"]


@pytest.mark.parametrize("family", ["dense", "recurrent", "sequential", "transformer"])
@pytest.mark.parametrize("unit", [1024.0, 1 / 1024])  # powers of 2 lose nothing
def test_the_unit_of_real_data_does_not_matter(family, unit):
    corpus, elbo = make_corpus("real"), []
    for factor in (1.0, unit):
        splits = {name: replace(part, values=part.values * np.float32(factor)) for name, part in corpus.splits.items()}
        config = Config.for_data(corpus.spec, params_of("real", family, **FAST))
        trainer = Trainer(config, TrainingData.load(replace(corpus, splits=splits), CPU), epoch_steps=1000)
        trainer.train_epoch()
        # The density of 5 numbers in smaller units is lower.
        elbo.append(trainer.train_epoch()["val_elbo"] + 5 * math.log(factor))
    assert elbo[1] == pytest.approx(elbo[0], abs=1e-2)


def test_free_bits_keep_the_code_alive():
    kl = [
        make_trainer(epoch_steps=6000, beta=20.0, free_bits=bits, rate_target=0.0, **FAST).train_epoch()["kl"]
        for bits in (0.0, 1.0)
    ]
    assert kl[0] < 0.1
    assert kl[1] > 0.4


@pytest.mark.parametrize(
    ("family", "target"), [("dense", 1.0), ("recurrent", 0.5), ("sequential", 0.5), ("transformer", 0.5)]
)
def test_a_rate_target_holds_the_kl_at_its_value(family, target):
    """Where beta left alone would let the code die."""
    steered, left = (
        make_trainer("real", family, epoch_steps=3000, beta=5.0, rate_target=rate, **FAST) for rate in (target, 0.0)
    )
    for _ in range(6):
        metrics, alone = steered.train_epoch(), left.train_epoch()
    assert metrics["train_kl"] == pytest.approx(target, rel=0.2)
    assert metrics["kl"] == pytest.approx(target, rel=0.3)
    assert 0.5 < metrics["beta"] < 5.0 == alone["beta"]
    assert alone["kl"] < 0.05


# What is evaluated


@by_family
def test_the_average_of_the_weights_is_evaluated_and_kept_and_training_goes_on_from_the_weights(family):
    trainer, unseen = (make_trainer("binary", family, **FAST) for _ in range(2))
    metrics = trainer.train_epoch()
    assert "val_elbo" not in unseen.train_epoch(validate=False)
    assert_same(state(trainer), state(unseen))  # looking changes nothing
    found = []
    for _ in range(2):
        with trainer._optimizer.averaged():
            found.append(evaluate(trainer.model, trainer.data.songs["valid"], VALIDATION_SEED)["elbo"])
            average = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert found == [metrics["val_elbo"]] * 2
    assert_same(trainer.best.weights, average)
    present = evaluate(trainer.model, trainer.data.songs["valid"], VALIDATION_SEED)["elbo"]
    assert present != metrics["val_elbo"]


def test_without_an_average_the_weights_themselves_are_evaluated():
    trainer = make_trainer(ema=0.0)
    metrics = trainer.train_epoch()
    assert evaluate(trainer.model, trainer.data.songs["valid"], VALIDATION_SEED)["elbo"] == metrics["val_elbo"]
    assert_same(trainer.best.weights, trainer.model.state_dict())


@pytest.mark.parametrize("transpose", [0, 5])
def test_music_is_transposed_in_training_alone(transpose):
    trainer, seen = make_music_trainer(transpose), {True: set(), False: set()}

    def look(encoder, inputs):
        (rolls,) = inputs
        rolls = rolls[:, : rolls.shape[1] // 88 * 88]  # without what tells the transposition
        keys = rolls.reshape(len(rolls), -1, 88).amax((0, 1)).nonzero()
        seen[encoder.training] |= set(keys.flatten().tolist())

    trainer.model.encoder.register_forward_pre_hook(look)
    for _ in range(4):
        trainer.train_epoch()
    assert seen[False] == set(range(40, 46))
    assert seen[True] == set(range(40 - transpose, 46 + transpose))


def test_three_windows_in_ten_stay_in_their_key_and_the_others_go_anywhere():
    trainer = make_music_trainer(2)
    with trainer._own_randomness():
        shifts = torch.cat([trainer._shift(len(trainer._order.take())) for _ in range(400)])
    shares = torch.bincount(shifts + 2, minlength=5) / len(shifts)
    assert len(shifts) > 2000
    torch.testing.assert_close(shares, torch.tensor([0.14, 0.14, 0.44, 0.14, 0.14]), rtol=0.0, atol=0.04)


def test_songs_with_a_code_a_step_are_shown_in_parts_and_scored_whole():
    params = {"window": 20, "recall_width": 0}  # whose longest lag hangs on what is shown
    trainer, longest = make_trainer("binary", "sequential", crop=5, **params), 0
    for _ in range(50):
        longest = max(longest, trainer._order.take().longest)
    assert longest == 5
    whole = make_trainer("binary", "sequential", **params)
    assert trainer.validate() == whole.validate()  # the weights are the same


def test_products_are_in_bf16_where_that_is_faster_and_scores_in_float32():
    trainer, seen = make_trainer("binary", "recurrent"), {}

    def look(layer, _, output):
        seen[layer.training] = output.dtype

    trainer.model.head.output.register_forward_hook(look)
    trainer.train_epoch()
    faster = torch.bfloat16 if gains_by_bf16("recurrent", CPU) else torch.float32
    assert seen == {True: faster, False: torch.float32}


def test_a_conductor_is_shown_whole_bars():
    """Every window of two bars begins with one, at whatever phase a pass is cut."""
    trainer = make_trainer("binary", "hierarchical", window=6)
    starts = trainer.data.songs["train"].starts
    for _ in range(50):
        plan = trainer._order.take()
        assert ((plan.start - starts[plan.song]) % 3 == 0).all()


# Divergence


@pytest.mark.parametrize("epoch_steps", [50, 3000])  # seen on validation; in training
def test_a_run_that_diverges_never_reports(epoch_steps):
    trainer = make_trainer("real", epoch_steps=epoch_steps, dense_depth=16, **WILD)

    def train():
        for _ in range(100):
            assert all(math.isfinite(value) for value in trainer.train_epoch().values())

    with pytest.raises(
        DivergedError, match=r"^diverged in epoch \d+: the (log-likelihood|ELBO on validation) is -?(nan|inf)"
    ) as raised:
        train()
    assert "\n" not in str(raised.value)
    assert trainer.best is None or math.isfinite(trainer.best.metrics["val_elbo"])


def test_weights_that_are_not_finite_never_become_the_best(tmp_path):
    trainer = make_trainer()
    trainer.train_epoch()
    best = trainer.best
    with torch.no_grad():
        trainer.model.output.bias[0] = math.nan
    with pytest.raises(
        DivergedError, match=r"^diverged in epoch 2: the log-likelihood is nan after \d+ optimizer steps$"
    ):
        trainer.train_epoch()
    assert trainer.best is best
    loaded = checkpoint.load(saved(trainer, tmp_path / "run"))
    assert all(value.isfinite().all() for value in loaded.model.state_dict().values())


# The best epoch


def test_the_best_epoch_is_a_feasible_one_before_a_higher_one():
    trainer = make_trainer()
    rows = [
        {"val_elbo": -5.0, "kl": 0.0, "code_gain": 0.0},
        {"val_elbo": -9.0, "kl": 0.2, "code_gain": 0.1},
        {"val_elbo": -7.0, "kl": 0.2, "code_gain": 0.1},
        {"val_elbo": -7.0, "kl": 0.3, "code_gain": 0.1},  # no better
        {"val_elbo": -1.0, "kl": 9.0, "code_gain": 0.0},
    ]
    best = []
    for metrics in rows:
        trainer._keep_best(metrics)
        best.append(rows.index(trainer.best.metrics))
    assert best == [0, 1, 2, 2, 2]

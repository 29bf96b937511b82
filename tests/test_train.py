"""vae.train: schedules by hand, an epoch's length, learning, restores to the bit, divergence, the command."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import CPU, SMALL, make_corpus, make_trainer

from vae import checkpoint
from vae.config import Config
from vae.corpus import save_corpus
from vae.errors import UserError
from vae.evaluate import marginal_elbo
from vae.schedules import beta, learning_rate
from vae.train import DivergedError, Trainer, TrainingData, main

# All that a restore must bring back: dropout, both schedules in their midst, batches that reach over passes.
EVENTFUL = {"dropout": 0.3, "beta_warmup": 40, "lr_warmup": 5, "lr_decay": 50, "weight_decay": 0.1, "free_bits": 0.1}
TIMES = ("examples_per_second", "train_seconds")


def untimed(metrics):
    return {name: value for name, value in metrics.items() if name not in TIMES}


def state(trainer):
    """Weights, optimizer moments and counts, random state, order of data."""
    return {name: value.clone() for name, value in trainer._training_tensors().items()}


def assert_same(left, right):
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def saved(trainer, directory):
    directory.mkdir()
    trainer.save(directory)
    return directory


# Schedules


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (9, 0.2 + 0.8 * 0.5), (14, 0.2), (10_000, 0.2)],
)
def test_learning_rate_rises_and_falls(step, share):
    config = Config(learning_rate=0.1, lr_warmup=4, lr_decay=10, lr_final=0.2)
    assert learning_rate(config, step) == pytest.approx(0.1 * share, rel=1e-12)


@pytest.mark.parametrize("step", [0, 1, 10**6])
def test_learning_rate_is_constant_without_a_schedule(step):
    assert learning_rate(Config(learning_rate=0.1), step) == 0.1


@pytest.mark.parametrize(("step", "expected"), [(0, 0.0), (1, 0.5), (3, 1.5), (4, 2.0), (5, 2.0)])
def test_beta_rises_from_nothing(step, expected):
    assert beta(Config(beta=2.0, beta_warmup=4), step) == expected
    assert beta(Config(beta=2.0), step) == 2.0


def test_schedules_count_optimizer_steps_not_epochs():
    trainers = [make_trainer(epoch_steps=steps, lr_decay=50, beta_warmup=50) for steps in (300, 1200)]
    for _ in range(4):
        short = trainers[0].train_epoch()
    long = trainers[1].train_epoch()
    assert trainers[0].optimizer_step == trainers[1].optimizer_step
    assert (short["learning_rate"], short["beta"]) == (long["learning_rate"], long["beta"])
    assert 0 < short["beta"] < 1
    assert short["val_elbo"] == long["val_elbo"]


# Epochs


@pytest.mark.parametrize("epoch_steps", [50, 400, 2000])  # train has some 450 steps
def test_an_epoch_is_a_number_of_time_steps_whatever_the_corpus_holds(epoch_steps):
    trainer = make_trainer(epoch_steps=epoch_steps)
    for epoch in (1, 2, 3):
        assert trainer.train_epoch()["epoch"] == epoch
        # A batch is never cut; what it is too long by, the next epoch is shorter by.
        assert epoch * epoch_steps <= trainer.steps_seen < epoch * epoch_steps + 7 * 8


def test_an_epoch_shorter_than_a_batch_is_one_optimizer_step():
    trainer = make_trainer(epoch_steps=1)
    for epoch in (1, 2, 3):
        assert math.isfinite(trainer.train_epoch()["train_elbo"])
        assert trainer.optimizer_step == epoch


def test_metrics_are_complete_and_consistent():
    metrics = make_trainer().train_epoch()
    assert set(metrics) == {
        *("epoch", "train_log_likelihood", "train_kl", "train_elbo", "beta", "learning_rate"),
        *("examples_per_second", "train_seconds"),
        *("val_elbo", "val_elbo_per_song", "val_log_likelihood", "kl", "code_gain", "active_units"),
    }
    assert metrics["val_elbo"] == pytest.approx(metrics["val_log_likelihood"] - metrics["kl"], rel=1e-9)
    assert metrics["train_elbo"] == pytest.approx(metrics["train_log_likelihood"] - metrics["train_kl"], rel=1e-9)


# Learning


@pytest.mark.parametrize("family", ["dense", "recurrent"])
@pytest.mark.parametrize("kind", ["binary", "real", "unit"])
def test_a_few_epochs_beat_independent_features(kind, family):
    sizes = {"dense_width": 64, "rnn_layers": 1, "batch_size": 32}
    trainer = make_trainer(kind, family, epoch_steps=3000, learning_rate=1e-2, **sizes)
    metrics = [trainer.train_epoch() for _ in range(4)]
    marginal = marginal_elbo(trainer.data.moments, trainer.data.corpus.splits["valid"], trainer.data.corpus.spec)
    assert metrics[-1]["val_elbo"] > marginal + 0.3
    assert metrics[-1]["train_elbo"] > metrics[0]["train_elbo"] + 0.1
    assert trainer.best.metrics["val_elbo"] >= metrics[0]["val_elbo"]


@pytest.mark.parametrize("family", ["dense", "recurrent"])
@pytest.mark.parametrize("unit", [1024.0, 1 / 1024])  # powers of 2 lose nothing
def test_the_unit_of_real_data_does_not_matter(family, unit):
    corpus, elbo = make_corpus("real"), []
    for factor in (1.0, unit):
        splits = {name: replace(part, values=part.values * np.float32(factor)) for name, part in corpus.splits.items()}
        config = Config.for_data(corpus.spec, SMALL[family] | {"learning_rate": 1e-2, "batch_size": 32})
        trainer = Trainer(config, TrainingData.load(replace(corpus, splits=splits), CPU), epoch_steps=1000)
        trainer.train_epoch()
        # The density of 5 numbers in smaller units is lower.
        elbo.append(trainer.train_epoch()["val_elbo"] + 5 * math.log(factor))
    assert elbo[1] == pytest.approx(elbo[0], abs=1e-2)


def test_a_gradient_is_clipped_to_its_norm():
    norms = []
    for clip in (1e9, 0.01):
        trainer = make_trainer(epoch_steps=1, grad_clip=clip)
        trainer.train_epoch()
        norms.append(math.sqrt(sum(p.grad.square().sum().item() for p in trainer.model.parameters())))
    assert norms[0] > 0.02
    assert norms[1] == pytest.approx(0.01, rel=1e-3)


def test_weight_decay_shrinks_matrices_alone():
    plain, decayed = make_trainer(epoch_steps=1), make_trainer(epoch_steps=1, weight_decay=5.0)
    start = {name: value.clone() for name, value in plain.model.state_dict().items()}
    plain.train_epoch()
    decayed.train_epoch()
    for name, value in plain.model.named_parameters():
        lost = 1e-3 * 5.0 * start[name] if value.ndim > 1 else torch.zeros_like(value)
        torch.testing.assert_close(decayed.model.state_dict()[name], value - lost, rtol=1e-4, atol=1e-6)


def test_free_bits_keep_the_code_alive():
    kl = [
        make_trainer(epoch_steps=6000, learning_rate=1e-2, beta=20.0, free_bits=bits).train_epoch()["kl"]
        for bits in (0, 1)
    ]
    assert kl[0] < 0.1
    assert kl[1] > 0.5


# The same seed, the same run


@pytest.mark.parametrize("family", ["dense", "recurrent"])
def test_a_run_depends_on_its_seed_alone(family):
    runs = []
    for seed, process in ((1, 0), (1, 1), (2, 0)):
        torch.manual_seed(process)
        trainer = make_trainer("binary", family, seed, **EVENTFUL)
        torch.rand(3)
        runs.append((untimed(trainer.train_epoch()), state(trainer)))
    assert runs[0][0] == runs[1][0]
    assert_same(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0]
    weight = "model.posterior.weight"
    assert not torch.isclose(runs[0][1][weight], runs[2][1][weight]).all()


def test_a_trainer_leaves_the_randomness_of_the_process_alone(tmp_path):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    trainer = make_trainer(**EVENTFUL)
    trainer.train_epoch()
    trainer.restore(saved(trainer, tmp_path / "run"))
    trainer.train_epoch()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("family", ["dense", "recurrent"])
@pytest.mark.parametrize("kind", ["binary", "unit"])
def test_a_restored_run_goes_on_to_the_bit(kind, family, tmp_path):
    whole, first = make_trainer(kind, family, **EVENTFUL), make_trainer(kind, family, **EVENTFUL)
    expected = [untimed(whole.train_epoch()) for _ in range(4)]
    found = [untimed(first.train_epoch()) for _ in range(2)]
    directory = saved(first, tmp_path / "run")
    torch.rand(5)  # others draw random numbers meanwhile
    second = make_trainer(kind, family, **EVENTFUL)
    second.restore(directory)
    assert_same(state(second), state(first))
    found += [untimed(second.train_epoch()) for _ in range(2)]
    assert found == expected
    assert_same(state(second), state(whole))
    assert (second.epoch, second.optimizer_step, second.steps_seen) == (4, whole.optimizer_step, whole.steps_seen)
    assert untimed(second.best.metrics) == untimed(whole.best.metrics)
    assert second.best.key == whole.best.key
    assert_same(second.best.weights, whole.best.weights)
    assert second.train_seconds > first.train_seconds


def test_a_trainer_that_has_moved_on_can_be_restored_too(tmp_path):
    trainer = make_trainer(**EVENTFUL)
    trainer.train_epoch()
    directory = saved(trainer, tmp_path / "run")
    expected = untimed(trainer.train_epoch())
    trainer.train_epoch()
    trainer.restore(directory)
    assert untimed(trainer.train_epoch()) == expected


def test_a_checkpoint_of_another_kind_of_device_is_taken(tmp_path):
    """Not to the bit: each kind of device has random numbers of its own."""
    trainer = make_trainer()
    trainer.train_epoch()
    trainer._rng["cuda"] = torch.zeros(16, dtype=torch.uint8)  # as written on a GPU
    other = make_trainer()
    other.restore(saved(trainer, tmp_path / "run"))
    assert other.train_epoch()["epoch"] == 2


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"kind": "real"},
            r"a run goes on with the same fingerprint, but the checkpoint's is \w{64}, and this is \w{64}\.",
        ),
        ({"seed": 1}, r"a run goes on with the same seed, but the checkpoint's is 0, and this is 1\."),
        ({"epoch_steps": 9}, r"a run goes on with the same epoch_steps, but the checkpoint's is 300, and this is 9\."),
        ({"latent_dim": 3}, r"a run goes on with the same config, but the checkpoint's is \{.*'latent_dim': 4"),
        ({"dropout": 0.1}, r"a run goes on with the same config, but the checkpoint's is \{.*'dropout': 0\.0"),
    ],
)
def test_another_run_is_refused(other, message, tmp_path):
    trainer = make_trainer()
    trainer.train_epoch()
    directory = saved(trainer, tmp_path / "run")
    with pytest.raises(UserError, match=message):
        make_trainer(**other).restore(directory)


@pytest.mark.parametrize(
    "name", [checkpoint.CONFIG, checkpoint.COUNTERS, checkpoint.TRAINING, checkpoint.METRICS, checkpoint.MODEL]
)
def test_an_absent_or_truncated_file_is_refused_in_one_line(name, tmp_path):
    trainer = make_trainer()
    trainer.train_epoch()
    directory = saved(trainer, tmp_path / "run")
    data = (directory / name).read_bytes()
    (directory / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=rf"{name}: unreadable \([^\n]*\); the checkpoint is broken, use another\.$"):
        make_trainer().restore(directory)
    (directory / name).unlink()
    with pytest.raises(UserError, match=rf"no checkpoint here \({name} is missing\)\.$"):
        make_trainer().restore(directory)


def test_a_checkpoint_of_another_version_is_refused_in_one_line(tmp_path):
    trainer = make_trainer()
    trainer.train_epoch()
    directory = saved(trainer, tmp_path / "run")
    for record in ({}, [], {"epoch": 1}):
        (directory / checkpoint.COUNTERS).write_text(json.dumps(record))
        with pytest.raises(UserError, match=r"run: not a checkpoint of this version \([^\n]*\)\.$"):
            make_trainer().restore(directory)


# Divergence


@pytest.mark.parametrize("epoch_steps", [50, 3000])  # seen on validation; in training
def test_a_run_that_diverges_never_reports(epoch_steps):
    trainer = make_trainer("real", epoch_steps=epoch_steps, learning_rate=10.0, grad_clip=1e9, dense_depth=16)

    def train():
        for _ in range(100):
            assert all(math.isfinite(value) for value in trainer.train_epoch().values())

    with pytest.raises(
        DivergedError, match=r"^diverged in epoch \d+: the (loss|ELBO on validation) is -?(nan|inf)"
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
    with pytest.raises(DivergedError, match=r"^diverged in epoch 2: the loss is nan after \d+ optimizer steps$"):
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


# The command


@pytest.fixture
def data(tmp_path):
    save_corpus(make_corpus(), tmp_path / "made.npz")
    return tmp_path / "made.npz"


def arguments(data, *more):
    return [
        "--data",
        str(data),
        "--epoch-steps",
        "300",
        "--set",
        "dense_width=8",
        "--out",
        str(data.parent / "run"),
        *more,
    ]


def test_command_trains_what_the_trainer_trains(data, capsys):
    assert main(arguments(data, "--max-epochs", "2", "--seed", "5")) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["made", "training dense on this machine (cpu)"]
    assert [line.split()[:2] for line in printed[2:4]] == [["epoch", "1"], ["epoch", "2"]]
    corpus = make_corpus()
    config = Config.for_data(corpus.spec, {"dense_width": 8})
    trainer = Trainer(config, TrainingData.load(corpus, CPU), seed=5, epoch_steps=300)
    trainer.train_epoch()
    trainer.train_epoch()
    again = make_corpus()
    restored = Trainer(config, TrainingData.load(again, CPU), seed=5, epoch_steps=300)
    restored.restore(data.parent / "run")
    assert_same(state(restored), state(trainer))
    assert sorted(path.name for path in data.parent.iterdir()) == ["made.npz", "run"]


def test_command_takes_the_family_and_settings(data, capsys):
    assert (
        main(arguments(data, "--family", "recurrent", "--set", "rnn_width=5", "--set", "window=4", "--max-epochs", "1"))
        == 0
    )
    assert "training recurrent on this machine" in capsys.readouterr().out
    config = checkpoint.load(data.parent / "run").config
    assert (config.family, config.rnn_width, config.window) == ("recurrent", 5, 4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max-epochs", "0"], "--max-epochs must be at least 1, but got 0."),
        (["--epoch-steps", "-1"], "--epoch-steps must be at least 1, but got -1."),
        (["--seed", "-1"], "--seed must lie in 0..4294967295, but got -1."),
        (["--set", "latent"], "--set takes NAME=VALUE, but got 'latent'."),
        (["--set", "laten_dim=3"], "unknown hyperparameter 'laten_dim'; did you mean latent_dim?"),
        (["--set", "batch_size=0"], "batch_size must lie in 1..65536 (windows), but got 0."),
        (["--set", "window=99"], "window must not be longer than the longest song (20 steps), but got 99."),
        (
            ["--data", "nowhere"],
            "nowhere: no such file or folder. Pass bach, a folder of music, or a .json, .npy or .npz file.",
        ),
    ],
)
def test_command_tells_mistakes_in_one_line(data, more, message, capsys):
    assert main(arguments(data, *more)) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not (data.parent / "run").exists()


def test_command_tells_a_divergence_and_leaves_no_broken_checkpoint(data, capsys):
    save_corpus(make_corpus("real"), data)
    deep = ["--set", "dense_depth=16", "--set", "dense_width=32", "--set", "latent_dim=4"]
    assert main(arguments(data, *deep, "--set", "learning_rate=10", "--set", "grad_clip=1e9")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: diverged in epoch ")
    assert error.endswith("; lower learning_rate or grad_clip.\n")
    assert error.count("\n") == 1
    if (data.parent / "run").exists():
        checkpoint.load(data.parent / "run")


def test_command_never_replaces_what_is_no_checkpoint(data, capsys):
    out = data.parent / "run"
    out.mkdir()
    (out / "song.mid").write_bytes(b"precious")
    expected = f"error: {out}: holds something else than a checkpoint, which would be lost; pass another --out.\n"
    assert main(arguments(data, "--max-epochs", "1")) == 2
    assert capsys.readouterr().err == expected
    assert (out / "song.mid").read_bytes() == b"precious"
    shutil.rmtree(out)
    out.mkdir()
    assert main(arguments(data, "--max-epochs", "1")) == 0
    assert main(arguments(data, "--max-epochs", "1")) == 0  # over a checkpoint
    checkpoint.load(out)


def test_command_says_where_it_cannot_write(data, capsys):
    (data.parent / "file").write_text("")
    assert main([*arguments(data, "--max-epochs", "1"), "--out", str(data.parent / "file" / "run")]) == 2
    assert f"{data.parent / 'file' / 'run'}: cannot be written" in capsys.readouterr().err

"""vae.trainer: the same seed gives the same run, and a restored one goes on to the bit."""

import json

import pytest
import torch
from tiny import CASES, make_trainer
from training import CYCLING, STEERED, assert_same, make_music_trainer, saved, state, untimed

from vae import checkpoint
from vae.config import FAMILY_NAMES
from vae.errors import UserError

by_family = pytest.mark.parametrize("family", FAMILY_NAMES)
by_case = pytest.mark.parametrize(("kind", "family"), CASES)


@by_family
def test_a_run_depends_on_its_seed_alone(family):
    runs = []
    for seed, process in ((1, 0), (1, 1), (2, 0)):
        torch.manual_seed(process)
        trainer = make_trainer("binary", family, seed, **STEERED)
        torch.rand(3)
        runs.append((untimed(trainer.train_epoch()), state(trainer)))
    assert runs[0][0] == runs[1][0]
    assert_same(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0]
    weight = "model.head.output.weight"
    assert not torch.isclose(runs[0][1][weight], runs[2][1][weight]).all()


def test_a_trainer_leaves_the_randomness_of_the_process_alone(tmp_path):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    trainer = make_trainer(**CYCLING)
    trainer.train_epoch()
    trainer.restore(saved(trainer, tmp_path / "run"))
    trainer.train_epoch()
    assert torch.equal(torch.get_rng_state(), before)


def assert_restored_to_the_bit(make, directory):
    """Two epochs, a restore and two more against four."""
    whole, first = make(), make()
    expected = [untimed(whole.train_epoch()) for _ in range(4)]
    found = [untimed(first.train_epoch()) for _ in range(2)]
    saved(first, directory)
    torch.rand(5)  # others draw random numbers meanwhile
    second = make()
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


@by_case
@pytest.mark.parametrize("params", [CYCLING, STEERED], ids=["cycling", "steered"])
def test_a_restored_run_goes_on_to_the_bit(kind, family, params, tmp_path):
    assert_restored_to_the_bit(lambda: make_trainer(kind, family, **params), tmp_path / "run")


def test_a_restored_run_is_transposed_as_the_other_would_have_been(tmp_path):
    assert_restored_to_the_bit(lambda: make_music_trainer(6), tmp_path / "run")


def test_what_a_checkpoint_goes_on_with_is_there():
    steered, cycling = make_trainer(**STEERED), make_trainer(**CYCLING)
    for trainer in (steered, cycling):
        trainer.train_epoch()
        kinds = {name.split(".")[0] for name in state(trainer)} - {"control"}
        assert kinds == {"model", "optimizer", "rng", "order"}
        assert any(name.startswith("optimizer.average.") for name in state(trainer))
    assert 0.021 < state(steered)["control.beta"] < 2.0  # it begins at 0.02
    assert "control.beta" not in state(cycling)


def test_a_restored_run_corrects_its_rate_target_when_the_other_would_have(tmp_path, monkeypatch):
    trainer, restored, corrected = make_trainer(epoch_steps=1, **STEERED), make_trainer(epoch_steps=1, **STEERED), []
    for epoch in range(1, 7):
        trainer.train_epoch(validate=epoch in (1, 5))
    restored.restore(saved(trainer, tmp_path / "run"))
    monkeypatch.setattr(restored._control, "correct", lambda *_: corrected.append(restored.epoch))
    for _ in range(6):
        restored.train_epoch()
    assert corrected == [8, 11]


def test_a_trainer_that_has_moved_on_can_be_restored_too(tmp_path):
    trainer = make_trainer(**STEERED)
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


def test_a_learning_rate_that_has_fallen_falls_again_over_another_horizon(tmp_path):
    trainer = make_trainer(learning_rate=0.01, lr_warmup=0, lr_decay=1)
    assert trainer.train_epoch()["learning_rate"] < 0.001
    fallen = trainer.model.state_dict()["output.bias"].clone()
    trainer.train_epoch()
    slowly = (trainer.model.state_dict()["output.bias"] - fallen).abs().max()
    trainer.fall_within(10**6)
    assert trainer.train_epoch()["learning_rate"] == pytest.approx(0.01, rel=0.01)
    assert (trainer.model.state_dict()["output.bias"] - fallen).abs().max() > 2 * slowly
    assert checkpoint.load(saved(trainer, tmp_path / "run")).config.lr_decay == 10**6


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

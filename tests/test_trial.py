"""The trainable, driven as Ray drives it, in this process."""

import contextlib
import math
import re

import pytest
import torch
from tiny import SMALL, make_corpus

from sweep.crash import SetupError
from sweep.rungs import validates
from sweep.settings import Settings
from sweep.trial import VaeTrial, _loaded
from vae.config import FAMILY_NAMES
from vae.errors import OtherRunError
from vae.store import StoreError
from vae.trainer import Trainer, TrainingData, failure_of


class BoundTrial(VaeTrial):
    """What `tune.with_parameters` makes of it."""

    kind = "binary"

    def setup(self, config):
        corpus = make_corpus(self.kind)
        settings = Settings("t", "made", corpus.spec, "", ("dense",), 9, epoch_steps=300, seed=0, min_kl=0.1)
        super().setup(config, corpus, settings)


class RealTrial(BoundTrial):
    """On real data, whose density a wild step takes to infinity."""

    kind = "real"


@pytest.mark.parametrize("refusals", [2, None])
def test_a_worker_that_can_not_get_ready_at_once_tries_for_a_while(refusals, monkeypatch):
    load, said = TrainingData.load, []

    def refuse(corpus, device):
        said.append(device)
        if refusals is None or len(said) <= refusals:
            raise RuntimeError("no memory")
        return load(corpus, device)

    monkeypatch.setattr(TrainingData, "load", refuse)
    monkeypatch.setattr("sweep.trial._PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("sweep.trial._SETUP_SECONDS", 0.1 if refusals is None else 60.0)
    config = {"params": {"family": "dense"}, "seed": 0, "checkpoint": None, "epoch": 0}
    with pytest.raises(SetupError, match="RuntimeError: no memory") if refusals is None else contextlib.nullcontext():
        BoundTrial(config)
    assert len(said) > 1


@pytest.mark.parametrize("why", [None, "no GPU of the trial's", "made up", "torch has it"])
def test_a_trial_does_not_train_on_processors_where_it_holds_a_gpu_of_a_cluster(why, monkeypatch):
    monkeypatch.setattr("sweep.trial._PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("sweep.trial._SETUP_SECONDS", 0.05)
    monkeypatch.setattr("sweep.trial.default_device", lambda: torch.device("meta" if why == "torch has it" else "cpu"))
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.get_gpu_ids", lambda: [] if why == "no GPU of the trial's" else [0])
    monkeypatch.setattr(TrainingData, "load", lambda *given: given)
    monkeypatch.delenv("SWEEP_MADE_UP_GPUS", raising=False)
    if why == "made up":
        monkeypatch.setenv("SWEEP_MADE_UP_GPUS", "1")
    refused = pytest.raises(SetupError, match="has a share of a GPU, but torch sees none")
    with refused if why is None else contextlib.nullcontext():
        _loaded(make_corpus("binary"))


DIVERGING = {"learning_rate": 10.0, "lr_warmup": 0, "grad_clip": 1e9, "dense_depth": 16}


@pytest.fixture(autouse=True)
def _however_slow_the_machine(monkeypatch):
    """Reports come at rungs alone."""
    monkeypatch.setattr("sweep.trial.REPORT_SECONDS", math.inf)


def config(checkpoint=None, family="dense", epoch=0, **params):
    params = {**SMALL[family], "batch_steps": 50, **params}
    return {"number": 0, "params": params, "seed": 0, "checkpoint": checkpoint, "epoch": epoch}


@pytest.fixture
def trial():
    return BoundTrial(config())


def reports(trial, count):
    return [trial.step()["report"] for _ in range(count)]


def test_what_can_not_be_built_has_failed_and_not_its_worker():
    trial = BoundTrial({**config(), "seed": 2**80})  # of more bits than torch's generators take
    assert re.fullmatch(r"\w+Error: .+", trial.step()["report"].failure)
    assert trial.reset_config(config())
    assert trial.step()["report"].failure is None


def test_it_reports_at_every_rung(trial):
    told = reports(trial, 3)
    assert [report.epoch for report in told] == [1, 3, 9]
    assert [[metrics["epoch"] for metrics in report.curve] for report in told] == [[1], [2, 3], [4, 5, 6, 7, 8, 9]]


def test_it_scores_the_first_epochs_every_third_and_rungs(trial):
    scored = [m["epoch"] for report in reports(trial, 3) for m in report.curve if "val_elbo" in m]
    assert scored == [1, 2, 3, 6, 9]
    assert [epoch for epoch in range(1, 21) if validates(epoch, (1, 3, 9, 20))] == [1, 2, 3, 6, 9, 12, 15, 18, 20]


def test_it_reports_at_rungs_however_long_an_epoch_takes(trial, monkeypatch):
    monkeypatch.setattr("sweep.trial.REPORT_SECONDS", 0.0)
    assert [report.epoch for report in reports(trial, 9)] == list(range(1, 10))


def test_a_diverging_trial_is_a_failure_that_no_metric_hides():
    told = reports(RealTrial(config(**DIVERGING)), 3)
    failed = next(report for report in told if report.failure is not None)
    assert "diverged in epoch" in failed.failure
    assert all(math.isfinite(value) for report in told for metrics in report.curve for value in metrics.values())


def test_a_config_that_cannot_work_is_afailure_of(trial):
    trial.reset_config(config(window=99))
    (told,) = reports(trial, 1)
    assert told.failure is not None
    assert "window must not be longer than the longest song" in told.failure


def test_an_actor_is_as_good_as_new_for_the_next_trial():
    trial = RealTrial(config())
    (first,) = reports(trial, 1)
    trial.reset_config(config(**DIVERGING))
    assert any(report.failure for report in reports(trial, 3))
    trial.reset_config(config())
    (again,) = reports(trial, 1)
    assert again.failure is None
    assert [again.best[name] for name in ("val_elbo", "kl")] == [first.best[name] for name in ("val_elbo", "kl")]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_trial_goes_on_from_its_checkpoint(family, tmp_path):
    trial = BoundTrial(config(family=family))
    reports(trial, 2)
    trial.save_checkpoint(str(tmp_path))
    (straight,) = reports(trial, 1)
    restored = BoundTrial(config(checkpoint=str(tmp_path), family=family, epoch=3))
    assert restored._trainer.epoch == 3
    (resumed,) = reports(restored, 1)
    assert resumed.epoch == straight.epoch == 9
    assert [m.get("val_elbo") for m in resumed.curve] == [m.get("val_elbo") for m in straight.curve]


def test_a_checkpoint_that_this_node_does_not_see_is_no_fault_of_the_trials(tmp_path):
    with pytest.raises(StoreError, match="no checkpoint here"):
        BoundTrial(config(checkpoint=str(tmp_path / "absent"), epoch=3))


def test_a_checkpoint_of_another_configuration_is_no_fault_of_the_store(trial, tmp_path):
    """As after an update of the code."""
    trial.step()
    trial.save_checkpoint(str(tmp_path))
    with pytest.raises(OtherRunError, match="goes on with the same config"):
        BoundTrial(config(checkpoint=str(tmp_path), epoch=1, dropout=0.3))


def test_the_trainer_is_the_one_of_the_command_line(trial):
    assert type(trial._trainer) is Trainer


def test_a_trial_saved_at_the_top_reports_and_trains_no_further(trial, tmp_path):
    reports(trial, 3)
    trial.save_checkpoint(str(tmp_path))
    (told,) = reports(BoundTrial(config(checkpoint=str(tmp_path), epoch=9)), 1)
    assert (told.epoch, told.curve, told.failure) == (9, [], None)
    assert told.best["epoch"] <= 9


@pytest.mark.parametrize("ran", [2, 3])
def test_a_rung_that_the_driver_has_forgotten_is_reported_again_before_it_trains_on(ran, trial, tmp_path):
    last = reports(trial, ran)[-1]
    trial.save_checkpoint(str(tmp_path))
    (told,) = reports(BoundTrial(config(checkpoint=str(tmp_path), epoch=1)), 1)
    assert (told.epoch, told.best, len(told.curve)) == (last.epoch, last.best, 1)
    metrics = told.curve[0]
    assert metrics == {name: last.curve[-1][name] for name in metrics}
    assert {"epoch", "val_elbo", "kl", "code_gain"} <= metrics.keys()


def test_a_trial_that_takes_more_memory_than_there_is_has_failed_and_other_errors_are_raised():
    with pytest.raises(RuntimeError) as found:
        torch.empty(2**60)
    assert "allocate memory" in failure_of(found.value)
    assert "\n" not in failure_of(found.value)
    with pytest.raises(RuntimeError, match="no product"):
        failure_of(RuntimeError("no product of these"))

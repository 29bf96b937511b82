"""A third of the space can't be trained: through the real trainer, the search learns to leave it."""

from tiny import BINARY, make_corpus

from sweep.scheduler import Asha
from sweep.trial import VaeTrial

TRIALS = 60
EPOCH_STEPS = 640
SHORT = {"batch_steps": 64, "dense_width": 16, "dense_depth": 2, "head_width": 16}
EXPLOSIVE = {"learning_rate": 10.0, "weight_decay": 10.0, "lr_warmup": 0, "lr_decay": 0}
"""Every step multiplies the weights by a hundred."""


def lies_in_it(params):
    """The middle third of the learning rates that are drawn, 5e-4 to 1e-2: that of the default, and what is near it."""
    return 5e-4 * 20 ** (1 / 3) < params["learning_rate"] < 5e-4 * 20 ** (2 / 3)


def config_of(params):
    return {"params": params, "seed": 0, "checkpoint": None, "epoch": 0}


def train(asha, record, trial):
    """Trains a trial in this process until it ends or waits; its state then."""
    params = record.params | SHORT | (EXPLOSIVE if lies_in_it(record.params) else {})
    trial.reset_config(config_of(params))
    end = None
    while end is None:
        report = trial.step()["report"]
        end, failure = asha.judge(record.number, report), report.failure
    if end == "paused":
        record.state = end
    else:
        asha.study.finish(record.number, end, failure)
    return end


def test_few_of_the_last_half_of_proposals_diverge(make_study):
    study = make_study(TRIALS, spec=BINARY, families=("dense",), max_epochs=3, epoch_steps=EPOCH_STEPS, min_kl=0.0)

    class Worker(VaeTrial):
        def setup(self, config):
            super().setup(config, make_corpus(), study.settings)

    asha, worker = Asha(study, lambda: False), Worker(config_of({"family": "dense"} | SHORT))
    while (record := asha.next()) is not None:
        train(asha, record, worker)
    failed = [record for record in study.records.values() if record.state == "failed"]
    assert all("diverged" in record.failure for record in failed)
    assert [record.number for record in failed] == [n for n, r in study.records.items() if lies_in_it(r.params)]
    assert len(failed) >= 2
    late = [number for number in study.records if number >= TRIALS // 2]
    assert sum(lies_in_it(study.records[number].params) for number in late) < 0.1 * len(late)

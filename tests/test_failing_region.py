"""A third of the space can't be trained: through the real trainer, the search learns to leave it."""

from tiny import BINARY, CPU, make_corpus

from sweep.record import Report
from sweep.rungs import validates
from sweep.scheduler import Asha
from vae.config import Config
from vae.trainer import DivergedError, Trainer, TrainingData

TRIALS = 60
EPOCH_STEPS = 640
SHORT = {"batch_steps": 64}
EXPLOSIVE = {"learning_rate": 10.0, "weight_decay": 10.0, "lr_warmup": 0, "lr_decay": 0}
"""Every step multiplies the weights by a hundred."""


def lies_in_it(params):
    """The middle third of the learning rates that are drawn, 5e-4 to 1e-2: that of the default, and what is near it."""
    return 5e-4 * 20 ** (1 / 3) < params["learning_rate"] < 5e-4 * 20 ** (2 / 3)


def train(asha, record, data):
    """Trains a trial until it ends or waits, as `sweep.trial` does; its state then."""
    params = record.params | SHORT | (EXPLOSIVE if lies_in_it(record.params) else {})
    trainer = Trainer(Config.for_data(BINARY, params), data, epoch_steps=EPOCH_STEPS)
    end = None
    while end is None:
        failure, curve = None, []
        try:
            curve.append(trainer.train_epoch(validate=validates(trainer.epoch + 1, asha.rungs)))
        except DivergedError as error:
            failure = str(error)
        best = trainer.best.metrics if trainer.best else {}
        end = asha.judge(record.number, Report(trainer.epoch, curve, best, 1.0, "here", failure))
    if end == "paused":
        record.state = end
    else:
        asha.study.finish(record.number, end, failure)
    return end


def test_few_of_the_last_half_of_proposals_diverge(make_study):
    data = TrainingData.load(make_corpus(), CPU)
    study = make_study(TRIALS, spec=BINARY, families=("dense",), max_epochs=3, epoch_steps=EPOCH_STEPS, min_kl=0.0)
    asha = Asha(study, lambda: False)
    while (record := asha.next()) is not None:
        train(asha, record, data)
    failed = [record for record in study.records.values() if record.state == "failed"]
    assert all("diverged" in record.failure for record in failed)
    assert [record.number for record in failed] == [n for n, r in study.records.items() if lies_in_it(r.params)]
    assert len(failed) >= 2
    late = [number for number in study.records if number >= TRIALS // 2]
    assert sum(lies_in_it(study.records[number].params) for number in late) < 0.1 * len(late)

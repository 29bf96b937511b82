"""Plain Optuna as its documentation shows it: the same script started twice, sharing a study through a journal file.

It keeps no checkpoints, and loads the data once a process.
"""

import argparse
from typing import Any

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback

from benchmarks.contenders.measure import Tally, timed_epoch
from benchmarks.contenders.shared import GRACE_PERIOD, Suggest, parse
from sweep.rungs import REDUCTION_FACTOR
from vae.config import Config
from vae.corpus import load_corpus
from vae.trainer import MAX_EPOCHS, DivergedError, Trainer, TrainingData


class Objective:
    """Trains one trial after another.

    Args:
        args: of the command.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.tally = Tally()
        self._suggest: Suggest = args.suggest
        self._args = args
        self._data = TrainingData.load(load_corpus(str(args.data)), torch.device("cpu"))

    def __call__(self, trial: optuna.Trial) -> float:
        """The last epoch's ELBO on validation."""
        self.tally.begin()
        failed = False
        try:
            return self._train(trial)
        except DivergedError:
            failed = True
            raise
        finally:
            self.tally.end(failed)

    def _train(self, trial: optuna.Trial) -> float:
        params = self._suggest(trial, self._args.task)
        config = Config.for_data(self._data.corpus.spec, params)
        trainer = Trainer(config, self._data, self._args.seed, self._args.epoch_steps)
        metrics: dict[str, Any] = {}
        for epoch in range(1, MAX_EPOCHS + 1):
            metrics = timed_epoch(trainer)
            self.tally.add(metrics)
            trial.report(metrics["val_elbo"], epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(metrics["val_elbo"])


if __name__ == "__main__":
    arguments = parse("plain_optuna", __doc__)
    torch.set_num_threads(1)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(arguments.folder / "journal.log"))),
        study_name="sweep_overhead",
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=arguments.seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=GRACE_PERIOD, reduction_factor=REDUCTION_FACTOR),
    )
    objective = Objective(arguments)
    # Counts the trials of both processes; a trial that runs when the last one ends is finished, and counted too.
    study.optimize(objective, catch=(DivergedError,), callbacks=[MaxTrialsCallback(arguments.trials, states=None)])
    objective.tally.write(arguments.tally)

"""Ray Tune as its documentation shows it: function trainable, `OptunaSearch`, ASHA, a checkpoint with each report.

The loggers, the output and the snapshots of the experiment are Ray's defaults. The checkpoint holds the weights alone,
which is cheaper than this project's.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.contenders.measure import Tally, timed_epoch
from benchmarks.contenders.shared import GRACE_PERIOD, SLOTS, Suggest, parse
from sweep.replay import METRIC
from sweep.rungs import REDUCTION_FACTOR
from sweep.space import Task
from vae.config import Config
from vae.corpus import load_corpus
from vae.ranking import rank_value
from vae.trainer import MAX_EPOCHS, Trainer, TrainingData


class TallyCallback(tune.Callback):  # type: ignore[misc]  # ray ships incomplete types
    """Measures in the driver, at the events at which `sweep.callback` does."""

    def __init__(self) -> None:
        self.tally = Tally()

    def on_trial_start(self, **info: Any) -> None:
        """A trial's actor is up."""
        del info
        self.tally.begin()

    def on_trial_result(self, result: dict[str, Any], **info: Any) -> None:
        """A report came."""
        del info
        self.tally.add(result)

    def on_trial_complete(self, **info: Any) -> None:
        """A trial ended."""
        del info
        self.tally.end()

    def on_trial_error(self, **info: Any) -> None:
        """A trial diverged."""
        del info
        self.tally.end(failed=True)


def trainable(data: str, seed: int, epoch_steps: int, min_kl: float) -> Callable[[dict[str, Any]], None]:
    """The function that Ray Tune calls for each trial, in a process of the trial's own."""

    def train(config: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        corpus = load_corpus(data)
        model_config = Config.for_data(corpus.spec, config["params"])
        trainer = Trainer(model_config, TrainingData.load(corpus, torch.device("cpu")), seed, epoch_steps)
        for _ in range(MAX_EPOCHS):
            metrics = timed_epoch(trainer)
            metrics[METRIC] = rank_value(metrics, min_kl)
            with tempfile.TemporaryDirectory() as folder:
                torch.save({"epoch": trainer.epoch, "model": trainer.model.state_dict()}, Path(folder) / "model.pt")
                tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))

    return train


def drawn(trial: optuna.Trial, suggest: Suggest, task: Task) -> dict[str, Any]:
    """The space, define-by-run; not a lambda, for `OptunaSearch` pickles it."""
    return {"params": suggest(trial, task)}


def _search(args: argparse.Namespace) -> Tally:
    define_by_run = partial(drawn, suggest=args.suggest, task=args.task)
    callback = TallyCallback()
    tuner = tune.Tuner(
        # The path is resolved, for trials run in other folders.
        trainable(str(args.data.resolve()), args.seed, args.epoch_steps, args.task.min_kl),
        tune_config=tune.TuneConfig(
            metric="val_elbo",
            mode="max",
            search_alg=OptunaSearch(define_by_run, metric="val_elbo", mode="max", seed=args.seed),
            scheduler=ASHAScheduler(max_t=MAX_EPOCHS, grace_period=GRACE_PERIOD, reduction_factor=REDUCTION_FACTOR),
            num_samples=args.trials,
        ),
        run_config=tune.RunConfig(storage_path=str(args.folder.resolve()), callbacks=[callback]),
    )
    tuner.fit()
    return callback.tally


if __name__ == "__main__":
    arguments = parse("documentation", __doc__)
    ray.init(address="local", num_cpus=SLOTS)
    try:
        tally = _search(arguments)
    finally:
        ray.shutdown()
    tally.write(arguments.tally)

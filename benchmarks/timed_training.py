"""One training run of some minutes: the horizon of its learning rate is fitted to the time, epoch by epoch.

    python -m benchmarks.timed_training --data corpus.npz --params '{"family": "dense"}' --minutes 40 --out DIR

With `--patience 0.33` it ends early once a third of the time so far, and some minutes, have brought nothing better.
With `--begin DIR` it goes on from a checkpoint of the same configuration and seed.
Stands apart from `vae.train`, which counts in epochs, as results that can be repeated must. One thread.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch

from vae import checkpoint
from vae.config import Config, steps_as_wide
from vae.corpus import read_saved
from vae.device import default_device
from vae.ranking import rank_value
from vae.trainer import EPOCH_STEPS, DivergedError, Trainer, TrainingData

_TRIED = 15
"""Batches that the speed is measured on, after as many to warm up."""
_SHARE = 0.96
"""Of the time left, what the horizon is made for."""
_SCORING = 0.1
"""Share of the time that goes into scoring validation, about; the last epochs are all scored."""
_LAST = 3
_LEAST_PATIENCE = 240.0
"""Seconds, at least, that a patient run waits for something better."""


def steps_per_second(config: Config, data: TrainingData) -> float:
    """Time steps trained and scored in a second, of a run that is thrown away."""
    trainer = Trainer(config, data, epoch_steps=_TRIED * config.batch_steps)
    trainer.train_epoch(validate=False)
    started = time.perf_counter()
    before = trainer.steps_seen
    trainer.train_epoch(validate=False)
    each = (time.perf_counter() - started) / (trainer.steps_seen - before)
    started = time.perf_counter()
    trainer.validate()
    scoring = time.perf_counter() - started
    an_epoch = steps_as_wide(data.corpus.spec, EPOCH_STEPS)
    return 1.0 / (each + min(scoring / an_epoch, _SCORING * each))


class Pace:
    """When a run is scored, and when it is over.

    Args:
        seconds: of the run, from now.
        patience: share of the time so far that may bring nothing better; 1: no end before the time's.
    """

    def __init__(self, seconds: float, patience: float) -> None:
        self._began = self._bettered = time.monotonic()
        self._deadline, self._patience = self._began + seconds, patience
        self._longest = self._unscored = self._scoring = 0.0  # seconds of an epoch, since a score, of scoring
        self._spent, self._epochs = 0.0, 0

    def over(self) -> bool:
        """Whether another epoch would take too long, or nothing better has come for long."""
        now = time.monotonic()
        waited = now - self._bettered > max(_LEAST_PATIENCE, self._patience * (now - self._began))
        return waited or now + self._longest > self._deadline

    def epochs_left(self) -> float:
        """That fit into the rest of the time, as fast as those so far, of which there is one at least."""
        return max(0.0, self._deadline - time.monotonic()) * self._epochs / self._spent

    def due(self) -> bool:
        """Whether the next epoch should be scored: for a share of the time, and if it is the last that fits."""
        return _SCORING * self._unscored >= self._scoring or time.monotonic() + 2.0 * self._longest > self._deadline

    def observe(self, seconds: float, train_seconds: float, scored: bool, better: bool) -> None:
        """Takes in an epoch."""
        self._longest, self._unscored = max(self._longest, seconds), self._unscored + train_seconds
        self._spent, self._epochs = self._spent + seconds, self._epochs + 1
        if scored:
            self._unscored, self._scoring = 0.0, seconds - train_seconds
        if better:
            self._bettered = time.monotonic()


def train(
    config: Config,
    data: TrainingData,
    seed: int,
    seconds: float,
    patience: float,
    most_epochs: float = math.inf,
    begin: Path | None = None,
) -> Trainer:
    """Trains for some seconds, from now, with a learning rate that has fallen when they are over; see `Pace`.

    Args:
        config: hyperparameters.
        data: a corpus on a device.
        seed: of the run.
        seconds: in all.
        patience: as of `Pace`.
        most_epochs: an end before that of the time.
        begin: a checkpoint to go on from, of this configuration and seed.
    """
    pace = Pace(seconds, patience)
    trainer = Trainer(config, data, seed)
    if begin is not None:
        trainer.restore(begin)
    try:
        first = _SHARE * seconds * steps_per_second(config, data) / trainer.epoch_steps
        _train(trainer, pace, first, most_epochs)
    except DivergedError as error:
        print(error, flush=True)
    return trainer


def _train(trainer: Trainer, pace: Pace, further: float, most_epochs: float) -> None:
    """Trains until the pace ends it, or `most_epochs` do; `further` epochs would fit at the speed measured."""
    epochs = _fit(trainer, further, most_epochs)
    most = -math.inf  # feasible or not: a code may take long to say enough
    while trainer.epoch < epochs and not pace.over():
        started, scored = time.monotonic(), pace.due() or epochs - trainer.epoch <= _LAST
        metrics = trainer.train_epoch(validate=scored)
        value = rank_value(metrics, trainer.min_kl) if scored else -math.inf
        pace.observe(time.monotonic() - started, metrics["train_seconds"], scored, value > most)
        most = max(most, value)
        epochs = _fit(trainer, _SHARE * pace.epochs_left(), most_epochs)
        if scored:
            print(
                f"epoch {trainer.epoch} of {epochs}: val_elbo {metrics['val_elbo']:.3f}, kl {metrics['kl']:.3f}, "
                f"code_gain {metrics['code_gain']:.3f}, train {metrics['train_elbo']:.3f}",
                flush=True,
            )


def _fit(trainer: Trainer, further: float, most: float) -> int:
    """Has the learning rate fall within so many further epochs, or `most` in all; the epochs in all."""
    horizon = min(trainer.steps_seen / trainer.epoch_steps + further, most)
    trainer.fall_within(max(1, int(horizon * trainer.epoch_steps)))
    return math.ceil(horizon)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code: 1 if not even an epoch was trained."""
    parser = argparse.ArgumentParser("python -m benchmarks.timed_training", description="Trains for some minutes.")
    parser.add_argument("--data", type=Path, required=True, help="an .npz that save_corpus wrote")
    parser.add_argument("--params", type=json.loads, required=True, help="hyperparameters by name, JSON")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--epochs", type=int, default=math.inf, metavar="N", help="at most")
    parser.add_argument("--patience", type=float, default=1.0, metavar="SHARE", help="default: 1, all of the minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--begin", type=Path, metavar="DIR", help="a checkpoint to go on from")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    started = time.monotonic()
    data = TrainingData.load(read_saved(args.data), default_device())
    params: dict[str, Any] = args.params
    config = Config.for_data(data.corpus.spec, params)
    left = 60.0 * args.minutes - (time.monotonic() - started)
    trainer = train(config, data, args.seed, left, args.patience, args.epochs, args.begin)
    if trainer.best is None:
        return 1
    with checkpoint.replacing(args.out) as scratch:
        trainer.save(scratch, final=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One training run that lasts as long as it is told: the horizon of its learning rate is fitted to the time.

    python -m benchmarks.timed_training --data corpus.npz --params '{"family": "dense"}' --minutes 40 --out DIR

Stands apart from `vae.train`, which counts in epochs, as results that can be repeated must. One thread.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vae import checkpoint
from vae.config import Config
from vae.corpus import read_saved
from vae.train import EPOCH_STEPS, DivergedError, Trainer, TrainingData, default_device

_TRIED = 15
"""Batches that the speed is measured on, after as many to warm up."""
_SHARE = 0.96
"""Of the time left, what the horizon is made for; a run that turns out slower is cut at the end of its time."""
_SCORING = 0.1
"""Share of the time that goes into scoring validation, about; the last epochs are all scored."""
_LAST = 3


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
    return 1.0 / (each + min(scoring / EPOCH_STEPS, _SCORING * each))


def train(config: Config, data: TrainingData, seconds: float, seed: int) -> Trainer:
    """Trains for some seconds, from now, with a learning rate that has fallen when they are over."""
    deadline = time.monotonic() + seconds
    horizon = _SHARE * seconds * steps_per_second(config, data)
    decay = max(1, int(horizon / config.batch_steps) - config.lr_warmup)
    trainer = Trainer(replace(config, lr_decay=decay), data, seed)
    epochs, longest, unscored, scoring = math.ceil(horizon / EPOCH_STEPS), 0.0, 0.0, 0.0
    while trainer.epoch < epochs and time.monotonic() + longest < deadline:
        started = time.monotonic()
        last = epochs - trainer.epoch <= _LAST or time.monotonic() + 2.0 * longest > deadline
        scored = last or _SCORING * unscored >= scoring
        try:
            metrics = trainer.train_epoch(validate=scored)
        except DivergedError as error:
            print(error, flush=True)
            break
        seconds = time.monotonic() - started
        longest, unscored = max(longest, seconds), unscored + metrics["train_seconds"]
        if scored:
            unscored, scoring = 0.0, seconds - metrics["train_seconds"]
            print(
                f"epoch {trainer.epoch} of {epochs}: val_elbo {metrics['val_elbo']:.3f}, kl {metrics['kl']:.3f}, "
                f"code_gain {metrics['code_gain']:.3f}, train {metrics['train_elbo']:.3f}",
                flush=True,
            )
    return trainer


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code: 1 if not even an epoch was trained."""
    parser = argparse.ArgumentParser("python -m benchmarks.timed_training", description="Trains for some minutes.")
    parser.add_argument("--data", type=Path, required=True, help="an .npz that save_corpus wrote")
    parser.add_argument("--params", type=json.loads, required=True, help="hyperparameters by name, JSON")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    started = time.monotonic()
    data = TrainingData.load(read_saved(args.data), default_device())
    params: dict[str, Any] = args.params
    config = Config.for_data(data.corpus.spec, params)
    trainer = train(config, data, 60.0 * args.minutes - (time.monotonic() - started), args.seed)
    if trainer.best is None:
        return 1
    with checkpoint.replacing(args.out) as scratch:
        trainer.save(scratch, final=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What tests of training share: eventful configs, the whole state of a trainer, a trainer on piano rolls."""

import numpy as np
import torch
from tiny import CPU, make_corpus, params_of

from vae.config import Config
from vae.corpus import Corpus, Split, fingerprint
from vae.encoding import DataSpec
from vae.trainer import Trainer, TrainingData

NOISY = {
    "dropout": 0.3,
    "input_dropout": 0.2,
    "step_dropout": 0.1,
    "encoder_dropout": 0.2,
    "weight_dropout": 0.2,
    "ema": 0.9,
}
SCHEDULED = {"lr_warmup": 5, "lr_decay": 2500, "weight_decay": 0.1}
CYCLING = {**NOISY, **SCHEDULED, "free_bits": 0.1, "beta_warmup": 10, "beta_cycle": 17}
STEERED = {**NOISY, **SCHEDULED, "rate_target": 1e-3, "beta": 2.0}
"""All that a restore must bring back, in two kinds: dropouts, schedules in their midst, what keeps the code alive."""


def untimed(metrics):
    """All but what hangs on the clock."""
    return {name: value for name, value in metrics.items() if name not in ("examples_per_second", "train_seconds")}


def state(trainer):
    """Weights and their average, optimizer moments and counts, controlled beta, random state, order of data."""
    return {name: value.clone() for name, value in trainer._training_tensors().items()}


def assert_same(left, right):
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def saved(trainer, directory):
    directory.mkdir()
    trainer.save(directory)
    return directory


def make_music_trainer(transpose):
    """A trainer on piano rolls of six keys in the middle."""
    corpus = make_corpus()
    spec = DataSpec("roll", 88, 1, None, 100.0, 8, 20)
    splits = {
        name: Split(np.pad(part.values, ((0, 0), (40, 42))), part.lengths) for name, part in corpus.splits.items()
    }
    music = Corpus("made", spec, splits, ("made",), fingerprint(spec, splits))
    config = Config.for_data(spec, params_of("binary", "dense", batch_steps=50, transpose=transpose))
    return Trainer(config, TrainingData.load(music, CPU), epoch_steps=600)

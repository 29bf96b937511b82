"""Corpora of a few hundred made steps, in which a code has something to say, and models small enough to test."""

import numpy as np
import torch

from vae.config import Config
from vae.corpus import Corpus, Split, fingerprint
from vae.encoding import DataSpec
from vae.models.base import Vae
from vae.models.registry import build_model
from vae.train import Trainer, TrainingData
from vae.windows import Batch

torch.set_num_threads(1)  # as trials do; threads that wait for each other on busy cores take a hundred times as long

CPU = torch.device("cpu")
SMALL = {
    "dense": {"family": "dense", "dense_width": 12, "latent_dim": 4},
    "recurrent": {"family": "recurrent", "rnn_width": 10, "latent_dim": 4, "rnn_layers": 2},
}
BINARY = DataSpec("binary", 6, 1, None, 100.0, 8, 20)
REAL = DataSpec("real", 5, 1, None, 100.0, 1, 1)
SPECS = {"binary": BINARY, "real": REAL, "unit": DataSpec("real", 5, 1, None, 100.0, 1, 1, unit_interval=True)}


def _binary_split(generator: np.random.Generator, songs: int) -> Split:
    """Every song keeps to one of three chords, with a wrong key now and then."""
    chords = np.array([[1, 1, 0, 0, 0, 1], [0, 0, 1, 1, 0, 0], [0, 1, 0, 0, 1, 0]], bool)
    lengths = generator.integers(3, BINARY.longest_song, songs, endpoint=True)
    sound = np.repeat(chords[generator.integers(0, 3, songs)], lengths, axis=0)
    return Split((sound ^ (generator.random(sound.shape) < 0.05)).astype(np.uint8), lengths.astype(np.int64))


def _real_split(generator: np.random.Generator, rows: int, unit_interval: bool) -> Split:
    """Two factors behind five numbers."""
    loadings = np.array([[2.0, -1.0, 1.0, 0.0, 0.5], [0.0, 1.0, 1.5, -2.0, 0.5]])
    values = generator.standard_normal((rows, 2)) @ loadings + 0.1 * generator.standard_normal((rows, 5))
    values = 1.0 / (1.0 + np.exp(-values)) if unit_interval else values
    return Split(values.astype(np.float32), np.ones(rows, np.int64))


def make_corpus(kind: str = "binary", seed: int = 0, songs: int = 40) -> Corpus:
    spec, generator = SPECS[kind], np.random.default_rng(seed)
    splits = {
        name: _binary_split(generator, songs) if kind == "binary" else _real_split(generator, 5 * songs, kind == "unit")
        for name in ("train", "valid", "test")
    }
    return Corpus("made", spec, splits, ("made",), fingerprint(spec, splits))


def make_trainer(
    kind: str = "binary", family: str = "dense", seed: int = 0, epoch_steps: int = 300, **params
) -> Trainer:
    corpus = make_corpus(kind)
    config = Config.for_data(corpus.spec, {**SMALL[family], "batch_size": 7, **params})
    return Trainer(config, TrainingData.load(corpus, CPU), seed, epoch_steps)


def make_model(kind: str, family: str, seed: int = 0, **params) -> Vae:
    """A model in evaluation mode, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model(Config.for_data(SPECS[kind], SMALL[family] | params), SPECS[kind]).eval()


def make_batch(kind: str, window: int, lengths: list[int], seed: int = 0) -> Batch:
    """Random windows, padded with zeros."""
    generator, spec = torch.Generator().manual_seed(seed), SPECS[kind]
    x = torch.rand(len(lengths), window, spec.features, generator=generator)
    previous = torch.rand(len(lengths), spec.features, generator=generator)
    x, previous = (x.round(), previous.round()) if spec.is_binary else (x, previous)
    mask = torch.arange(window) < torch.tensor(lengths)[:, None]
    return Batch(x * mask[:, :, None], mask, previous)

"""Corpora of a few hundred made steps, in which a code has something to say, and models small enough to test."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from scipy.stats import chisquare
from torch import Tensor

from vae.config import HEAD_NAMES, Config, whole_bars
from vae.corpus import Corpus, Split, fingerprint
from vae.encoding import PITCHES, DataSpec
from vae.models.base import Vae
from vae.models.registry import FAMILIES, build_model
from vae.trainer import Trainer, TrainingData
from vae.windows import Batch

Module = TypeVar("Module", bound=torch.nn.Module)

torch.set_num_threads(1)  # as trials do; threads that wait for each other on busy cores take a hundred times as long

CPU = torch.device("cpu")
_SIZES = {
    "latent_dim": 4,
    "head_width": 10,
    "dense_width": 12,
    "rnn_width": 10,
    "recall_width": 6,
    "transformer_width": 8,
    "transformer_heads": 2,
    "transformer_layers": 2,
    "encoder_width": 6,
}
_WHOLE = {"dropout": 0.0, "input_dropout": 0.0, "head_dropout": 0.0}
SMALL = {family: {"family": family, **_SIZES, **_WHOLE} for family in FAMILIES}
"""Params by family; windows are the family's."""
BINARY = DataSpec("binary", 6, 1, 3, 100.0, 8, 20)
MUSIC = DataSpec("roll", PITCHES, 4, 8, 100.0, 16, 32, typical_song=16)
REAL = DataSpec("real", 5, 1, None, 100.0, 1, 1)
SPECS = {"binary": BINARY, "real": REAL, "unit": DataSpec("real", 5, 1, None, 100.0, 1, 1, unit_interval=True)}
CASES = [(kind, family) for kind in SPECS for family in FAMILIES if kind == "binary" or family != "hierarchical"]
"""Kinds of data with the families that fit them: rows have no bars."""
HEADED = [(family, head) for family in FAMILIES for head in HEAD_NAMES]
"""Families with heads; of binary data."""
CHORDS = np.array([[1, 1, 0, 0, 0, 1], [0, 0, 1, 1, 0, 0], [0, 1, 0, 0, 1, 0]], np.uint8)
"""What songs of binary data keep to."""


def params_of(kind: str, family: str, **params) -> dict:
    """A small model of windows that are shorter than some songs."""
    spec = SPECS[kind]
    return SMALL[family] | {"window": whole_bars(spec) if family == "hierarchical" else spec.window} | params


def _binary_split(generator: np.random.Generator, songs: int) -> Split:
    """Every song keeps to one of three chords, with a wrong key now and then."""
    lengths = generator.integers(3, BINARY.longest_song, songs, endpoint=True)
    sound = np.repeat(CHORDS.astype(bool)[generator.integers(0, 3, songs)], lengths, axis=0)
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


def make_music(seed: int = 0) -> Corpus:
    """Random piano rolls, too sparse to say much."""
    generator, splits = np.random.default_rng(seed), {}
    for name in ("train", "valid", "test"):
        lengths = np.array([32, 16, 16, 9, 20])
        splits[name] = Split((generator.random((lengths.sum(), PITCHES)) < 0.05).astype(np.uint8), lengths)
    return Corpus("rolls", MUSIC, splits, ("made",), fingerprint(MUSIC, splits))


def make_wide_rows(features: int) -> Corpus:
    """Rows of 0 and 1, a step each, and each as wide as `features / 88` steps of music."""
    spec, generator = DataSpec("real", features, 1, None, 100.0, 1, 1, unit_interval=True), np.random.default_rng(0)
    splits = {
        name: Split((generator.random((30, features)) < 0.05).astype(np.float32), np.ones(30, np.int64))
        for name in ("train", "valid", "test")
    }
    return Corpus("wide", spec, splits, ("made",), fingerprint(spec, splits))


def make_trainer(
    kind: str = "binary", family: str = "dense", seed: int = 0, epoch_steps: int = 300, **params
) -> Trainer:
    corpus = make_corpus(kind)
    config = Config.for_data(corpus.spec, params_of(kind, family, **{"batch_steps": 50, **params}))
    return Trainer(config, TrainingData.load(corpus, CPU), seed, epoch_steps)


def make_model(kind: str, family: str, seed: int = 0, **params) -> Vae:
    """A model in evaluation mode, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model(Config.for_data(SPECS[kind], params_of(kind, family, **params)), SPECS[kind]).eval()


def randomise(model: Module, seed: int = 0, gain: float = 1.5) -> Module:
    """Gives all weights random values, those that begin at zero too, so large that every part has a say."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            noise = torch.randn(weights.shape, generator=generator)
            if weights.ndim > 1:
                weights.copy_(gain * noise / weights.shape[1] ** 0.5)
            else:
                weights.copy_(0.5 * noise + float("norm" in name and "weight" in name))
    return model


def each_tensor(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """A batch of the same windows, every tensor of which is changed."""
    return replace(batch, **{name: change(value) for name, value in vars(batch).items() if value is not None})


def make_batch(kind: str, window: int, lengths: list[int], seed: int = 0) -> Batch:
    """Random windows, padded with zeros; the first begins its song."""
    generator, spec = torch.Generator().manual_seed(seed), SPECS[kind]
    x = torch.rand(len(lengths), window, spec.features, generator=generator)
    previous = torch.rand(len(lengths), spec.features, generator=generator)
    x, previous = (x.round(), previous.round()) if spec.is_binary else (x, previous)
    mask = torch.arange(window) < torch.tensor(lengths)[:, None]
    begins = torch.arange(len(lengths)) == 0
    shift = torch.zeros(len(lengths), dtype=torch.long)
    return Batch(x * mask[:, :, None], mask, previous * ~begins[:, None], begins, shift)


def noise_for(model: Vae, batch: Batch, seed: int = 0) -> torch.Tensor:
    return torch.randn(model.code_shape(*batch.mask.shape), generator=torch.Generator().manual_seed(seed))


def sample(model: Vae, n: int, steps: int, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """Windows at the start of songs, [n, T, D]: codes from the prior, then what the decoder draws."""
    z = torch.randn(model.code_shape(n, steps), generator=generator)
    return model.decode(z, steps, temperature, generator)


def chi_square(counts: torch.Tensor, p: torch.Tensor) -> float:
    """The p-value of counts under probabilities; cells that expect less than 5 are one."""
    observed, expected = counts.double().numpy(), p.double().numpy() * int(counts.sum())
    rare = expected < 5
    observed, expected = (np.append(part[~rare], part[rare].sum()) for part in (observed, expected))
    some = expected > 0
    assert not observed[~some].any()
    return float(chisquare(observed[some], expected[some] * observed.sum() / expected[some].sum()).pvalue)

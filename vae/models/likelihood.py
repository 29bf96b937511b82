"""Output distributions: Bernoulli for binary data, Gaussian for real data."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vae.corpus import Split
from vae.encoding import DataSpec

SCALE_FLOOR = 0.01
"""Smallest scale of a Gaussian, as a share of train's standard deviation: else the density is unbounded.

Of a feature that is constant in train it is all of what stands in for that: nothing in train would tell it to stay.
"""
_CONSTANT = 1e-9  # of its size, what a feature moves by at most


_BLOCK = 4096  # rows
_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class Moments(NamedTuple):
    """Mean and standard deviation of each feature over the training steps."""

    mean: npt.NDArray[np.float64]  # [D]; of binary data with add-one smoothing, so inside (0, 1)
    std: npt.NDArray[np.float64]  # [D], > 0; of what is constant the largest of the others
    varies: npt.NDArray[np.bool_]  # [D]


def moments_of(train: Split, spec: DataSpec) -> Moments:
    """The moments of a training split."""
    total = train.values.sum(axis=0, dtype=np.float64)
    if spec.is_binary:
        mean = (total + 1.0) / (len(train.values) + 2.0)
        return Moments(mean, np.sqrt(mean * (1.0 - mean)), np.ones(len(mean), bool))
    mean = total / len(train.values)
    blocks = np.array_split(train.values, -(-len(train.values) // _BLOCK))  # each is widened to 64 bits
    std = np.sqrt(sum(np.square(block - mean).sum(axis=0) for block in blocks) / len(train.values))
    varies = std > _CONSTANT * np.abs(mean)
    return Moments(mean, np.where(varies, std, std[varies].max(initial=0.0) or 1.0), varies)


def build_likelihood(spec: DataSpec, moments: Moments | None) -> "Bernoulli | Gaussian":
    """The output distribution that fits the data."""
    if spec.is_binary:
        return Bernoulli(spec.features, moments)
    return Gaussian(spec.features, moments, spec.unit_interval)


def _logit(p: npt.NDArray[np.float64]) -> Tensor:
    p = np.clip(p, 1e-4, 1.0 - 1e-4)
    return torch.from_numpy(np.log(p) - np.log1p(-p)).float()


class Bernoulli(nn.Module):
    """Independent 0-or-1 features, by their logits. Decoders start at the logits of train's marginal."""

    def __init__(self, features: int, moments: Moments | None) -> None:
        super().__init__()
        self.initial_bias = torch.zeros(features) if moments is None else _logit(moments.mean)  # [D]

    def standardise(self, x: Tensor) -> Tensor:
        """What a network reads of x: 0 and 1 as they are."""
        return x

    def nothing(self) -> Tensor | float:
        """What is read as zeros."""
        return 0.0

    def log_prob(self, logits: Tensor, x: Tensor) -> Tensor:
        """Log p(x), summed over features: [..., D] and [..., D] to [...], in nats."""
        # log p = x l - softplus(l); written out, it costs half of binary_cross_entropy_with_logits on a CPU.
        logits = logits.float()
        return (x * logits - nn.functional.softplus(logits)).sum(-1)

    def sample(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """0 or 1, of the shape of `logits`; drawn on the CPU so that devices agree."""
        uniform = torch.rand(logits.shape, generator=generator).to(logits.device)
        return self.on(logits, temperature, uniform).float()

    def on(self, logits: Tensor, temperature: float, uniform: Tensor) -> Tensor:
        """Which features uniform numbers of [0, 1) turn on; all of one shape."""
        return uniform < torch.sigmoid(logits.float() / temperature)


class Gaussian(nn.Module):
    """Independent normal features: a mean for each, and one learned scale a feature with a floor.

    Networks read and write features in train's standard deviations, so the unit of the data does not matter.
    """

    center: Tensor  # [D], train's mean
    spread: Tensor  # [D], train's standard deviation
    floor: Tensor  # [D], of the scale, as a share of the spread

    def __init__(self, features: int, moments: Moments | None, unit_interval: bool) -> None:
        super().__init__()
        moments = moments or Moments(np.zeros(features), np.ones(features), np.ones(features, bool))
        self._unit_interval = unit_interval
        self.initial_bias = _logit(moments.mean) if unit_interval else torch.zeros(features)
        self.register_buffer("center", torch.from_numpy(moments.mean).float())
        self.register_buffer("spread", torch.from_numpy(moments.std).float())
        self.register_buffer("floor", torch.from_numpy(np.where(moments.varies, SCALE_FLOOR, 1.0)).float())
        self.log_scale = nn.Parameter(torch.full((features,), math.log(1.0 - SCALE_FLOOR)))

    def standardise(self, x: Tensor) -> Tensor:
        """What a network reads of x: distances from train's mean, in its standard deviations."""
        return (x - self.center) / self.spread

    def nothing(self) -> Tensor | float:
        """What is read as zeros, [D]."""
        return self.center

    def scale(self) -> Tensor:
        """The standard deviation of each feature around its mean, [D]."""
        return self.spread * torch.maximum(SCALE_FLOOR + self.log_scale.exp(), self.floor)

    def mean(self, parameters: Tensor) -> Tensor:
        """The mean of each feature; inside (0, 1) where the data lie in [0, 1]."""
        parameters = parameters.float()
        return torch.sigmoid(parameters) if self._unit_interval else self.center + self.spread * parameters

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log density of x, summed over features: [..., D] and [..., D] to [...], in nats."""
        scale = self.scale()
        z = (x - self.mean(parameters)) / scale
        return (-0.5 * z.square() - scale.log() - _HALF_LOG_TWO_PI).sum(-1)

    def sample(self, parameters: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """The means: noise around them is not what a listener asked for."""
        del temperature, generator
        return self.mean(parameters)

"""The interface of a model family.

Shape letters: B batch, T time steps of a window, D features, Z latent dimensions.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae.config import Config
from vae.encoding import DataSpec
from vae.models.likelihood import Moments, build_likelihood
from vae.windows import Batch

_STD_FLOOR = 1e-4  # keeps log std finite


class Posterior(NamedTuple):
    """q(z|x), a normal distribution with independent dimensions."""

    mean: Tensor  # [B, Z]
    std: Tensor  # [B, Z], > 0


class Vae(nn.Module, ABC):
    """A variational autoencoder with one code a window and the prior N(0, 1).

    Args:
        config: hyperparameters.
        spec: the data.
        moments: of the training set, for the initial output; None if weights will be loaded.
    """

    def __init__(self, config: Config, spec: DataSpec, moments: Moments | None) -> None:
        super().__init__()
        self.config = config
        self.spec = spec
        self.likelihood = build_likelihood(spec, moments)

    @abstractmethod
    def encode(self, batch: Batch) -> Posterior:
        """The posterior of each window's code."""

    @abstractmethod
    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """Log p(x | z, steps before the window), [B], in nats; padding left out. `z` is [B, Z]."""

    @abstractmethod
    def sample(self, z: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """Draws x ~ p(x|z), [B, T, D]; for real data the mean.

        Args:
            z: [B, Z].
            temperature: divides the logits; under 1 is safer, over 1 wilder.
            generator: on the CPU.
        """

    def _posterior(self, parameters: Tensor) -> Posterior:
        """Reads [B, 2 Z] as mean and std; std is about 1 where the parameter is 0."""
        mean, raw = parameters.float().chunk(2, dim=-1)
        return Posterior(mean, nn.functional.softplus(raw + 0.5413) + _STD_FLOOR)  # softplus(0.5413) = 1

"""`dense`: the seed's family. A window is one flat vector; encoder and decoder are stacks of dense layers."""

import torch
from torch import Tensor, nn

from vae.config import Config
from vae.encoding import DataSpec
from vae.models.base import Posterior, Vae
from vae.models.likelihood import Moments
from vae.windows import Batch

_INITIAL_SHARE = 0.1


def _widths(config: Config) -> list[int]:
    """Outer layers have `dense_width` units, inner ones twice as many: 256-512-256 by default."""
    inner = [2 * config.dense_width] * (config.dense_depth - 2)
    return [config.dense_width, *inner, config.dense_width] if config.dense_depth > 1 else [config.dense_width]


def _stack(inputs: int, widths: list[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, width in zip([inputs, *widths], widths, strict=False):
        layers += [nn.Linear(before, width), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers)


class Dense(Vae):
    """All steps of a window at once, independent given the code."""

    def __init__(self, config: Config, spec: DataSpec, moments: Moments | None) -> None:
        super().__init__(config, spec, moments)
        size, widths = config.window * spec.features, _widths(config)
        self.encoder = _stack(size, widths, config.dropout)
        self.posterior = nn.Linear(widths[-1], 2 * config.latent_dim)
        self.decoder = _stack(config.latent_dim, widths, config.dropout)
        self.output = nn.Linear(widths[-1], size)
        with torch.no_grad():
            self.output.bias.copy_(self.likelihood.initial_bias.repeat(config.window))
            if spec.is_binary:
                # Thousands of keys: near the prior and the marginal, or an epoch goes by on unlearning random ones.
                self.posterior.weight.mul_(_INITIAL_SHARE)
                self.output.weight.mul_(_INITIAL_SHARE)

    def encode(self, batch: Batch) -> Posterior:
        """See `Vae.encode`."""
        return self._posterior(self.posterior(self.encoder(self.likelihood.standardise(batch.x).flatten(1))))

    def _outputs(self, z: Tensor) -> Tensor:
        """[B, Z] to the likelihood's parameters [B, T, D]."""
        flat: Tensor = self.output(self.decoder(z))
        return flat.view(len(z), self.config.window, -1)

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """See `Vae.log_likelihood`."""
        return (self.likelihood.log_prob(self._outputs(z), batch.x) * batch.mask).sum(1)

    def sample(self, z: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """See `Vae.sample`."""
        return self.likelihood.sample(self._outputs(z), temperature, generator)

"""`dense`: the seed's family. A window is one flat vector; encoder and decoder are stacks of dense layers."""

import torch
from torch import Tensor, nn

from vae.config import Config
from vae.encoding import DataSpec
from vae.models.base import Normal, WindowVae, as_normal
from vae.models.dropout import Dropout
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
        layers += [Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers)


class Dense(WindowVae):
    """All steps of a window at once, independent given the code."""

    continues = False

    def __init__(self, config: Config, spec: DataSpec, moments: Moments | None) -> None:
        independent = config.head == "independent"
        super().__init__(config, spec, moments, None if independent else config.head_width)
        each = spec.features if independent else config.head_width
        widths = _widths(config)
        self._told = 2 * config.transpose + 1 if config.transpose else 0
        self.encoder = _stack(config.window * spec.features + self._told, widths, config.dropout)
        self.posterior = nn.Linear(widths[-1], 2 * config.latent_dim)
        self.decoder = _stack(config.latent_dim + self._told, widths, config.dropout)
        self.output = nn.Linear(widths[-1], config.window * each)
        with torch.no_grad():
            if independent:
                self.output.bias.copy_(self.head.likelihood.initial_bias.repeat(config.window))
            if spec.is_binary:
                # Thousands of keys: near the prior and the marginal, or an epoch goes by on unlearning random ones.
                self.posterior.weight.mul_(_INITIAL_SHARE)
                self.output.weight.mul_(_INITIAL_SHARE)

    def padded_to(self, longest: int) -> int:
        """Every window is as long as the layers are wide."""
        del longest
        return self.config.window

    def encode(self, batch: Batch) -> Normal:
        """See `WindowVae.encode`."""
        x = self.head.likelihood.standardise(batch.x).flatten(1)
        return as_normal(self.posterior(self.encoder(self._tell(x, batch.shift))))

    def states(self, batch: Batch | None, z: Tensor) -> Tensor:
        """See `Vae.states`; here of the code and the transposition alone."""
        shift = torch.zeros(len(z), dtype=torch.long, device=z.device) if batch is None else batch.shift
        flat: Tensor = self.output(self.decoder(self._tell(z, shift)))
        return flat.view(len(z), self.config.window, -1)

    def _tell(self, x: Tensor, shift: Tensor) -> Tensor:
        """Puts the transposition beside the inputs, [B, N] and [B] semitones, if it is trained on."""
        if not self._told:
            return x
        told = nn.functional.one_hot(shift + self.config.transpose, self._told)
        return torch.cat([x, told.to(x.dtype)], dim=1)

    def decode(
        self, z: Tensor, steps: int, temperature: float, generator: torch.Generator, after: Batch | None = None
    ) -> Tensor:
        """See `Vae.decode`."""
        return self.head.sample(self.states(after, z)[:, :steps], temperature, generator)

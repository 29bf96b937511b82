"""`recurrent`: a bidirectional GRU reads a window into one code; a GRU writes it step by step.

After MusicVAE's flat model (Roberts et al. 2018). The decoder sees each step before the one it scores, the step
before the window included, and the code at every step.
"""

import torch
from torch import Tensor, nn

from vae.config import Config
from vae.encoding import DataSpec
from vae.models.base import Posterior, Vae
from vae.models.likelihood import Moments
from vae.windows import Batch


class Recurrent(Vae):
    """Steps one after another, each given the code and all steps before it."""

    def __init__(self, config: Config, spec: DataSpec, moments: Moments | None) -> None:
        super().__init__(config, spec, moments)
        width, layers = config.rnn_width, config.rnn_layers
        self.encoder = nn.GRU(spec.features, width, bidirectional=True, batch_first=True)
        self.posterior = nn.Linear(2 * width, 2 * config.latent_dim)
        self.read_step = nn.Linear(spec.features, width)
        self.read_code = nn.Linear(config.latent_dim, width)
        self.initial = nn.Linear(config.latent_dim, layers * width)
        between = config.dropout if layers > 1 else 0.0
        self.decoder = nn.GRU(width, width, num_layers=layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(width, spec.features)
        with torch.no_grad():
            self.output.bias.copy_(self.likelihood.initial_bias)

    def encode(self, batch: Batch) -> Posterior:
        """See `Vae.encode`."""
        states, _ = self.encoder(self.likelihood.standardise(batch.x))  # [B, T, 2 H]
        forward, backward = states.chunk(2, dim=-1)
        last = batch.mask.sum(1) - 1
        summary = torch.cat([forward[torch.arange(len(last), device=last.device), last], backward[:, 0]], dim=-1)
        return self._posterior(self.posterior(self.dropout(summary)))

    def _read(self, x: Tensor) -> Tensor:
        """What the decoder takes from earlier steps, [B, T, D] to [B, T, H]."""
        read: Tensor = self.read_step(self.likelihood.standardise(x))
        return read

    def _start(self, z: Tensor) -> Tensor:
        """The decoder's first state, [layers, B, H]."""
        state = torch.tanh(self.initial(z)).view(len(z), self.config.rnn_layers, -1)
        return state.transpose(0, 1).contiguous()

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """See `Vae.log_likelihood`."""
        before = torch.cat([batch.previous[:, None], batch.x[:, :-1]], dim=1)
        inputs = self._read(before) + self.read_code(z)[:, None]
        states, _ = self.decoder(inputs, self._start(z))
        outputs = self.output(self.dropout(states))
        return (self.likelihood.log_prob(outputs, batch.x) * batch.mask).sum(1)

    def sample(self, z: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """See `Vae.sample`; the window begins a song."""
        code, state = self.read_code(z)[:, None], self._start(z)
        x = z.new_zeros(len(z), 1, self.spec.features)
        steps = []
        for _ in range(self.config.window):
            output, state = self.decoder(self._read(x) + code, state)
            x = self.likelihood.sample(self.output(output), temperature, generator)
            steps.append(x)
        return torch.cat(steps, dim=1)

"""`hierarchical`: from one code a conductor makes a plan of each bar; a decoder writes each bar from its plan.

MusicVAE's decoder (Roberts et al. 2018): the decoder begins every bar anew, so that what bars have in common must go
through the code. It still sees the step before each, the last of the bar before included.
"""

import torch
from torch import Tensor, nn

from vae.config import Config
from vae.encoding import DataSpec
from vae.models.base import SummaryVae
from vae.models.dropout import Dropout
from vae.models.layers import PastReader
from vae.models.likelihood import Moments
from vae.windows import Batch


class Hierarchical(SummaryVae):
    """Bars that know of each other by the code alone."""

    def __init__(self, config: Config, spec: DataSpec, moments: Moments | None) -> None:
        assert spec.steps_per_bar is not None, "Config.for_data refuses it"
        width = config.rnn_width
        super().__init__(config, spec, moments, width)
        self._bar = spec.steps_per_bar
        self.begin = nn.Linear(config.latent_dim, width)
        self.conductor = nn.LSTM(width, width, batch_first=True)
        self.plan = nn.Linear(width, 3 * width)
        self.past = PastReader(config, spec, self.head, width)
        self.decoder = nn.LSTM(width, width, batch_first=True)
        self.dropout = Dropout(config.dropout)

    def padded_to(self, longest: int) -> int:
        """Whole bars."""
        return -(-super().padded_to(longest) // self._bar) * self._bar

    def _plans(self, z: Tensor, bars: int) -> tuple[Tensor, Tensor, Tensor]:
        """What each bar's decoder begins with (output and cell) and reads at every step: [B, bars, H] each."""
        begun = torch.tanh(self.begin(z))[:, None].expand(-1, bars, -1).contiguous()
        conducted, _ = self.conductor(begun)
        h, c, into = self.plan(self.dropout(conducted)).chunk(3, dim=-1)
        return torch.tanh(h), c, into

    def states(self, batch: Batch, z: Tensor) -> Tensor:
        """See `Vae.states`."""
        n, steps, _ = batch.x.shape
        h, c, into = self._plans(z, steps // self._bar)
        read = self.past(batch).unflatten(1, (-1, self._bar)) + into[:, :, None]
        start = (h.flatten(0, 1)[None].contiguous(), c.flatten(0, 1)[None].contiguous())
        states, _ = self.decoder(read.flatten(0, 1), start)  # all bars at once
        return self.dropout(states).reshape(n, steps, -1)  # type: ignore[no-any-return]

    def decode(
        self, z: Tensor, steps: int, temperature: float, generator: torch.Generator, after: Batch | None = None
    ) -> Tensor:
        """See `Vae.decode`."""
        plans = self._plans(z, -(-steps // self._bar))
        read, written = self.past.first(len(z), after), []
        for step in range(steps):
            h, c, into = (part[:, step // self._bar].contiguous() for part in plans)
            if step % self._bar == 0:
                state = (h[None], c[None])
            states, state = self.decoder(read + into[:, None], state)
            x = self.head.sample(states[:, 0], temperature, generator)
            read = self.past.one(x)
            written.append(x)
        return torch.stack(written, dim=1)

"""`recurrent`: an LSTM each way reads a window into one code; an LSTM writes it step by step.

After MusicVAE's flat model (Roberts et al. 2018). The decoder sees each step before the one it scores, the step before
the window included, the code at every step, and what followed earlier moments like the present (`layers.Recall`).
"""

import torch
from torch import Tensor

from vae.config import MOST_STEPS, Config
from vae.encoding import DataSpec
from vae.models.base import SummaryVae
from vae.models.layers import Writer, read_code
from vae.models.likelihood import Moments
from vae.windows import Batch


class Recurrent(SummaryVae):
    """Steps one after another, each given the code and all steps before it."""

    most_scored = MOST_STEPS

    def __init__(self, config: Config, spec: DataSpec, moments: Moments | None) -> None:
        super().__init__(config, spec, moments, config.rnn_width)
        self.into = read_code(config.latent_dim, config.rnn_width)
        self.onto = read_code(config.latent_dim, config.rnn_width)
        self.writer = Writer(config, spec, self.head, config.shown)

    def states(self, batch: Batch, z: Tensor) -> Tensor:
        """See `Vae.states`."""
        return self.writer(batch, self.into(z)[:, None], self.onto(z)[:, None])  # type: ignore[no-any-return]

    def decode(
        self, z: Tensor, steps: int, temperature: float, generator: torch.Generator, after: Batch | None = None
    ) -> Tensor:
        """See `Vae.decode`."""
        return self.writer.play(
            self.writer.begin(len(z), after),
            steps,
            lambda state, _: self.head.sample(state[:, 0], temperature, generator),
            self.into(z)[:, None],
            self.onto(z)[:, None],
        )

"""`sequential`: each step has a code, with a prior learned from the steps before and a posterior that sees the future.

    p(x, z) = prod_t p(z_t) p(x_t | x_<t, m_t + s_t z_t)        q(z|x) = prod_t q(z_t | x)

As in the SRNN (Fraccaro et al. 2016), the prior is learned, and q reads the decoder's states, runs backwards over the
steps and corrects the prior. Here z is counted from the prior's mean m_t in units of its scale s_t, both functions of
x_<t: N(0, 1), as in the other families. Unlike there z_t does not depend on z_(t-1): all are drawn at once.
"""

import torch
from torch import Tensor, nn

from vae.config import MOST_STEPS, Config
from vae.encoding import DataSpec
from vae.models.base import Code, Terms, Vae, as_normal, draw_code
from vae.models.dropout import Dropout
from vae.models.layers import StepReader, Writer, read_code, reverse
from vae.models.likelihood import Moments
from vae.windows import Batch


class Sequential(Vae):
    """A code a step, for what the past does not tell about it."""

    code_unit, most_scored = "step", MOST_STEPS

    def __init__(self, config: Config, spec: DataSpec, moments: Moments | None) -> None:
        super().__init__(config, spec, moments, config.rnn_width)
        width, codes = config.encoder_width, config.latent_dim
        self.writer = Writer(config, spec, self.head, config.shown)
        self.prior = nn.Linear(config.rnn_width, 2 * codes)
        self.reader = StepReader(config, spec, self.head, width)
        self.backward_lstm = nn.LSTM(width, width, batch_first=True)
        self.meet = nn.Linear(config.rnn_width + width, width)
        self.correction = nn.Linear(width, 2 * codes)
        self.onto = read_code(codes, config.rnn_width)
        self.dropout = Dropout(config.encoder_dropout)
        for weights in self.prior.parameters():
            nn.init.zeros_(weights)  # N(0, 1) at first

    def _code(self, batch: Batch, states: Tensor, noise: Tensor) -> Code:
        read = torch.relu(self.reader(batch.x, batch.shift, self.dropout))
        future, _ = self.backward_lstm(reverse(read, batch.lengths))
        met = torch.relu(self.meet(torch.cat([states, reverse(future, batch.lengths)], dim=-1)))
        return draw_code(as_normal(self.correction(self.dropout(met))), noise, batch.mask[..., None])

    def code(self, batch: Batch, noise: Tensor) -> Code:
        """See `Vae.code`."""
        return self._code(batch, self.writer(batch), noise)

    def states(self, batch: Batch, z: Tensor) -> Tensor:
        """See `Vae.states`."""
        return self._tell(self.writer(batch), z)

    def _tell(self, states: Tensor, z: Tensor) -> Tensor:
        """Adds to the states before some steps what their codes say, [B, T, H] and [B, T, Z]."""
        mean, std = as_normal(self.prior(states))
        told: Tensor = states + self.onto(mean + std * z)
        return told

    def terms(self, batch: Batch, noise: Tensor) -> Terms:
        """See `Vae.terms`; the decoder's states serve both parts."""
        states = self.writer(batch)
        code = self._code(batch, states, noise)
        return Terms(self.score(self._tell(states, code.z), batch), code)

    def decode(
        self, z: Tensor, steps: int, temperature: float, generator: torch.Generator, after: Batch | None = None
    ) -> Tensor:
        """See `Vae.decode`."""

        def draw(state: Tensor, step: int) -> Tensor:
            return self.head.sample(self._tell(state, z[:, step, None])[:, 0], temperature, generator)

        return self.writer.play(self.writer.begin(len(z), after), steps, draw)

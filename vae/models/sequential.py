"""`sequential`: each step has a code, with a prior learned from the steps before and a posterior that sees the future.

    p(x, z) = prod_t p(z_t | x_<t) p(x_t | x_<t, z_t)        q(z|x) = prod_t q(z_t | x)

As in the SRNN (Fraccaro et al. 2016), q reads the decoder's states and runs backwards over the steps, and its mean and
scale are those of the prior, corrected. Unlike there z_t does not depend on z_(t-1): all steps are drawn at once.
"""

import torch
from torch import Tensor, nn

from vae.config import Config
from vae.encoding import DataSpec
from vae.loss import kl_normal, log_normal_ratio
from vae.models.base import Code, Normal, Terms, Vae, as_normal
from vae.models.dropout import Dropout
from vae.models.layers import Pen, StepReader, Writer, read_code, reverse
from vae.models.likelihood import Moments
from vae.windows import Batch


class Sequential(Vae):
    """A code a step, for what the past does not tell about it."""

    code_unit = "step"

    def __init__(self, config: Config, spec: DataSpec, moments: Moments | None) -> None:
        super().__init__(config, spec, moments, config.rnn_width)
        width, codes = config.encoder_width, config.latent_dim
        self.writer = Writer(config, spec, self.head)
        self.prior = nn.Linear(config.rnn_width, 2 * codes)
        self.reader = StepReader(config, spec, self.head, width)
        self.backward_lstm = nn.LSTM(width, width, batch_first=True)
        self.meet = nn.Linear(config.rnn_width + width, width)
        self.correction = nn.Linear(width, 2 * codes)
        self.onto = read_code(codes, config.rnn_width)
        self.dropout = Dropout(config.encoder_dropout)
        for weights in self.prior.parameters():
            nn.init.zeros_(weights)  # N(0, 1) at first

    @property
    def shown(self) -> int:
        """Parts of a long song, many at once; each step has its own code, so a song is still scored as a whole."""
        return min(self.config.window, self.config.crop)

    def _code(self, batch: Batch, states: Tensor, noise: Tensor) -> Code:
        prior = as_normal(self.prior(states))
        read = torch.relu(self.reader(self.dropout(batch.x), batch.shift))
        future, _ = self.backward_lstm(reverse(read, batch.lengths))
        met = torch.relu(self.meet(torch.cat([states, reverse(future, batch.lengths)], dim=-1)))
        offset, scale = as_normal(self.correction(self.dropout(met)))
        posterior = Normal(prior.mean + prior.std * offset, prior.std * scale)
        z = posterior.mean + posterior.std * noise
        log_ratio = log_normal_ratio(z, noise, posterior.std, *prior)
        real = batch.mask[..., None]
        kl = kl_normal(*posterior, *prior)
        return Code(z, posterior, prior, *((part * real).flatten(1).sum(1) for part in (kl, log_ratio)))

    def code(self, batch: Batch, noise: Tensor) -> Code:
        """See `Vae.code`."""
        return self._code(batch, self.writer(batch), noise)

    def states(self, batch: Batch, z: Tensor) -> Tensor:
        """See `Vae.states`."""
        return self.writer(batch) + self.onto(z)  # type: ignore[no-any-return]

    def terms(self, batch: Batch, noise: Tensor) -> Terms:
        """See `Vae.terms`; the decoder's states serve both parts."""
        states = self.writer(batch)
        code = self._code(batch, states, noise)
        return Terms(self.score(states + self.onto(code.z), batch), code)

    def decode(
        self, z: Tensor, steps: int, temperature: float, generator: torch.Generator, after: Batch | None = None
    ) -> Tensor:
        """See `Vae.decode`."""
        return self._write(self.writer.begin(len(z), after), z, steps, temperature, generator)

    def sample(
        self, n: int, steps: int, temperature: float, generator: torch.Generator, after: Batch | None = None
    ) -> Tensor:
        """See `Vae.sample`; codes are drawn as the music goes on."""
        return self._write(self.writer.begin(n, after), None, steps, temperature, generator)

    def _write(self, pen: Pen, z: Tensor | None, steps: int, temperature: float, generator: torch.Generator) -> Tensor:
        def draw(state: Tensor, step: int) -> Tensor:
            code = self._draw(state, generator) if z is None else z[:, step, None]
            return self.head.sample((state + self.onto(code))[:, 0], temperature, generator)

        return self.writer.play(pen, steps, draw)

    def _draw(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """A code from the prior, [n, 1, Z]."""
        mean, std = as_normal(self.prior(state))
        return mean + std * torch.randn(mean.shape, generator=generator).to(mean.device)

"""The interface of a model family.

Shape letters: B batch, T time steps of a window, D features, Z latent dimensions, H hidden units.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vae.config import Config
from vae.encoding import DataSpec
from vae.loss import kl_normal, log_normal_ratio
from vae.models.heads import build_head
from vae.models.layers import Summary
from vae.models.likelihood import Moments
from vae.windows import Batch

_STD_FLOOR = 1e-4  # keeps log std finite
_STEPS = 32


class Normal(NamedTuple):
    """A normal distribution with independent dimensions."""

    mean: Tensor  # [..., Z]
    std: Tensor  # [..., Z], > 0


class Code(NamedTuple):
    """A draw from the posterior q(z|x) of each window; the prior p(z) is N(0, 1) in every family."""

    z: Tensor  # [B, Z]; [B, T, Z] where each step has a code of its own
    posterior: Normal  # that it was drawn from, of the shape of z
    kl: Tensor  # [B], KL(q(z|x) || p(z)), in nats
    log_ratio: Tensor  # [B], log p(z) - log q(z|x), in nats


class Terms(NamedTuple):
    """The parts of a window's evidence lower bound at one draw of its code."""

    log_likelihood: Tensor  # [B], log p(x|z), in nats
    code: Code


class Vae(nn.Module, ABC):
    """A variational autoencoder of windows.

    Args:
        config: hyperparameters.
        spec: the data.
        moments: of the training set, for the initial output; None if weights will be loaded.
        inputs: units that the decoder gives the output head; None if it makes the parameters of independent features.
    """

    code_unit: ClassVar[str] = "window"
    """What has a code of its own: `window` or `step`."""
    most_scored: ClassVar[int] = 0
    """Steps of a song that can be scored as one window, if windows of train are whole songs; 0: no more than those."""
    continues: ClassVar[bool] = True
    """Whether a window knows the step before it, so that a piece can be longer than one."""

    def __init__(self, config: Config, spec: DataSpec, moments: Moments | None, inputs: int | None) -> None:
        super().__init__()
        self.config = config
        self.spec = spec
        self.head = build_head(config, spec, moments, inputs)

    @property
    def scored(self) -> int:
        """Steps of a window that is scored at once: `most_scored` where windows of train are whole songs, if more."""
        window = self.config.window
        return max(window, self.most_scored) if window >= self.spec.longest_song else window

    def padded_to(self, longest: int) -> int:
        """Steps that a batch is padded to whose longest window has `longest`; on a GPU few sizes, see `vae.graphs`."""
        if self.device().type == "cpu":
            return longest
        padded = -(-longest // _STEPS) * _STEPS
        return min(padded, self.config.shown) if longest <= self.config.shown else padded

    def code_shape(self, n: int, steps: int) -> tuple[int, ...]:
        """The shape of z for n windows of so many steps."""
        return (n, steps, self.config.latent_dim) if self.code_unit == "step" else (n, self.config.latent_dim)

    @abstractmethod
    def code(self, batch: Batch, noise: Tensor) -> Code:
        """Draws the code of each window from its posterior.

        Args:
            batch: windows.
            noise: standard normal, of `code_shape`.
        """

    def posterior_of(self, batch: Batch) -> Normal:
        """The posterior of each window's code."""
        return self.code(batch, torch.zeros(self.code_shape(*batch.mask.shape), device=batch.x.device)).posterior

    @abstractmethod
    def states(self, batch: Batch, z: Tensor) -> Tensor:
        """What the output head gets: for each step what the decoder makes of z and of the steps before, [B, T, H]."""

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """Log p(x | z, the step before the window), [B], in nats; padding left out. `z` as in `Code`."""
        return self.score(self.states(batch, z), batch)

    def terms(self, batch: Batch, noise: Tensor) -> Terms:
        """The parts of the bound; `noise` as for `code`."""
        code = self.code(batch, noise)
        return Terms(self.log_likelihood(batch, code.z), code)

    @abstractmethod
    def decode(
        self, z: Tensor, steps: int, temperature: float, generator: torch.Generator, after: Batch | None = None
    ) -> Tensor:
        """Draws x ~ p(x|z), [B, T, D], each step given those drawn before it; for real data the means.

        Args:
            z: as in `Code`.
            steps: T, at most `scored`.
            temperature: divides the logits of keys.
            generator: on the CPU.
            after: windows in whose place to write, given the step before each; None: at the start of a song.
        """

    def score(self, h: Tensor, batch: Batch) -> Tensor:
        """Log p(x|h) of each window by the output head, padding left out: [B, T, H] to [B], in nats."""
        if batch.on is not None:  # counting real steps would wait for a GPU, and give another shape each time
            padded = self.head.log_prob(h.flatten(0, 1), batch.x.flatten(0, 1), batch.on).view(batch.mask.shape)
            return torch.where(batch.mask, padded, 0.0).sum(1)
        real = batch.mask.flatten().nonzero().squeeze(1)
        x, states = batch.x.flatten(0, 1).index_select(0, real), h.flatten(0, 1).index_select(0, real)
        window = torch.div(real, batch.mask.shape[1], rounding_mode="floor")
        log_prob = self.head.log_prob(states, x)
        return log_prob.new_zeros(len(batch.x)).index_add(0, window, log_prob)

    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


@contextmanager
def in_use(model: Vae) -> Iterator[None]:
    """Without dropout and gradients; as it was afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


class WindowVae(Vae):
    """A model with one code a window."""

    @abstractmethod
    def encode(self, batch: Batch) -> Normal:
        """The posterior of each window's code."""

    def code(self, batch: Batch, noise: Tensor) -> Code:
        """See `Vae.code`."""
        return draw_code(self.encode(batch), noise)


class SummaryVae(WindowVae):
    """A model whose posterior reads a window by an LSTM each way; arguments as of `Vae`."""

    def __init__(self, config: Config, spec: DataSpec, moments: Moments | None, inputs: int) -> None:
        super().__init__(config, spec, moments, inputs)
        self.summary = Summary(config, spec, self.head)
        self.posterior = nn.Linear(self.summary.outputs, 2 * config.latent_dim)

    def encode(self, batch: Batch) -> Normal:
        """See `WindowVae.encode`."""
        return as_normal(self.posterior(self.summary(batch)))


def draw_code(posterior: Normal, noise: Tensor, real: Tensor | float = 1.0) -> Code:
    """The code mean + std * noise; `real`, 0 or 1, tells which codes count."""
    z = posterior.mean + posterior.std * noise
    parts = (kl_normal(*posterior), log_normal_ratio(z, noise, posterior.std))
    return Code(z, posterior, *((part * real).flatten(1).sum(1) for part in parts))


def as_normal(parameters: Tensor) -> Normal:
    """Reads [..., 2 Z] as mean and std; std is about 1 where the parameter is 0."""
    mean, raw = parameters.float().chunk(2, dim=-1)
    return Normal(mean, nn.functional.softplus(raw + 0.5413) + _STD_FLOOR)  # softplus(0.5413) = 1

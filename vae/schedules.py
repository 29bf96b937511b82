"""What changes in the course of training: learning rate and beta, by the count of steps or by the KL."""

import math

import torch
from torch import Tensor

from vae.config import Config


def learning_rate(config: Config, optimizer_step: int, steps_seen: int) -> float:
    """Linear rise over `lr_warmup` optimizer steps, times a cosine fall over `lr_decay` time steps to `lr_final`.

    By time steps it falls within its horizon however many optimizer steps that takes: batches hold whole windows, and
    where songs are long, more or less of them than `batch_steps` says.
    """
    rise = min(1.0, (optimizer_step + 1) / config.lr_warmup) if config.lr_warmup else 1.0
    if not config.lr_decay:
        return config.learning_rate * rise
    progress = min(1.0, steps_seen / config.lr_decay)
    share = config.lr_final + (1.0 - config.lr_final) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.learning_rate * rise * share


def beta(config: Config, optimizer_step: int) -> float:
    """The weight of the KL: a linear rise from 0 over `beta_warmup` optimizer steps, again every `beta_cycle`.

    Warm-up: Sonderby et al. 2016; cycles: Fu et al. 2019.
    """
    if not config.beta_warmup:
        return config.beta
    at = optimizer_step % config.beta_cycle if config.beta_cycle else optimizer_step
    return config.beta * min(1.0, at / config.beta_warmup)


class RateControl:
    """Steers beta so that the KL on validation comes to `rate_target` nats a time step.

        beta <- clamp(beta * exp(0.05 * clamp(kl / target - 1, -1, 5)), beta / 100, beta)

    by the KL of each batch, the latter two betas being the config's: a code that is worth more than the target may cost
    more. It begins at the least, for a code that was pressed flat before it said anything does not come back; and it
    rises faster than it falls, or the first epoch would go by on codes of twenty times the target. Under the target the
    KL is free (see `vae.loss`), or what beta had risen to would press it flat before beta falls again. In the manner of
    ControlVAE (Shao et al. 2020), on a logarithmic scale. Stays on the device, so that a GPU is not waited for.

    The target of the batches is `rate_target` times what the KL falls by from training, with its dropout and its last
    weights, to validation: a KL that came out just below the floor of the metric would spoil all that it cost.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        self._wanted, self._most = config.rate_target, config.beta
        self.beta = torch.tensor(_LEAST * config.beta, device=device)
        self.target = torch.tensor(config.rate_target, device=device)

    def observe(self, rate: Tensor) -> None:
        """Takes in the KL of a batch, a scalar in nats per time step."""
        error = (rate.detach() / self.target - 1.0).clamp(-1.0, _FASTEST)
        self.beta.mul_(torch.exp(_GAIN * error)).clamp_(_LEAST * self._most, self._most)

    def correct(self, training: float, validation: float) -> None:
        """Takes in the KL of an epoch in training and after it on validation, in nats per time step.

        Goes half of the way, on a logarithmic scale; not while the KL is still far from its target, or beta near its
        least: then the code has yet to say something, and the averaged weights say less only because they lag behind.
        """
        target, steered = self.target.item(), self.beta.item() > _STEERING * _LEAST * self._most
        if steered and validation > 0.0 and 1.0 / _SETTLED < training / target < _SETTLED:
            gap = min(max(training / validation, 1.0 / _WIDEST), _WIDEST)
            self.target.fill_(math.sqrt(target * self._wanted * gap))


_GAIN = 0.05
_FASTEST = 5.0
_LEAST = 0.01
_STEERING = 3.0
_SETTLED = 1.5
_WIDEST = 3.0

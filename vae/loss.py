"""The objective: the evidence lower bound, with the weight and the free bits that training puts on its KL.

    loss = -log_likelihood + beta * max(kl, free_bits)

all in nats per time step, averaged over the steps of a batch. With beta = 1 and free_bits = 0 this is -ELBO
(Kingma & Welling 2014). beta: Higgins et al. 2017; free bits: Kingma et al. 2016, here on the rate of the batch.
"""

import torch
from torch import Tensor


def kl_normal(mean: Tensor, std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) of each dimension, in nats; shapes are kept."""
    return 0.5 * (mean.square() + std.square() - 1.0) - std.log()


def log_normal_ratio(z: Tensor, noise: Tensor, std: Tensor) -> Tensor:
    """Log N(z; 0, 1) - log N(z; mean, std^2) of each dimension, in nats, at z = mean + std * noise; shapes are kept."""
    return 0.5 * (noise.square() - z.square()) + std.log()


def objective(
    log_likelihood: Tensor, kl: Tensor, steps: int | Tensor, beta: float | Tensor, free_bits: float | Tensor
) -> Tensor:
    """The training loss, a scalar in nats per time step.

    Args:
        log_likelihood: [B], log p(x|z) of each unit, in nats.
        kl: [B], KL(q(z|x) || p(z)) of each unit, in nats.
        steps: time steps in the batch, padding left out.
        beta: weight of the KL.
        free_bits: nats a time step of KL that cost nothing, or what it is steered to; under it the KL has no gradient.
    """
    rate = kl.sum() / steps
    return beta * torch.clamp(rate, min=free_bits) - log_likelihood.sum() / steps

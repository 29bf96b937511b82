"""What changes in the course of training, by the count of optimizer steps: learning rate and beta."""

import math

from vae.config import Config


def learning_rate(config: Config, optimizer_step: int) -> float:
    """Linear rise over `lr_warmup` optimizer steps, then a cosine fall over `lr_decay` to `lr_final`."""
    rise = min(1.0, (optimizer_step + 1) / config.lr_warmup) if config.lr_warmup else 1.0
    if not config.lr_decay:
        return config.learning_rate * rise
    progress = min(1.0, max(0, optimizer_step - config.lr_warmup) / config.lr_decay)
    share = config.lr_final + (1.0 - config.lr_final) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.learning_rate * rise * share


def beta(config: Config, optimizer_step: int) -> float:
    """The weight of the KL: a linear rise from 0 over `beta_warmup` optimizer steps."""
    if not config.beta_warmup:
        return config.beta
    return config.beta * min(1.0, optimizer_step / config.beta_warmup)

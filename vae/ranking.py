"""What trials and epochs are ranked by: the bound, and a code that says something."""

from collections.abc import Mapping

KL_PENALTY = 10.0


def rank_value(metrics: Mapping[str, float], min_kl: float) -> float:
    """What trials are ranked by: `val_elbo - 10 * max(0, min_kl - kl)`, higher is better."""
    return metrics["val_elbo"] - KL_PENALTY * max(0.0, min_kl - metrics["kl"])


def is_feasible(metrics: Mapping[str, float], min_kl: float) -> bool:
    """Whether the code carries at least `min_kl` nats a step and the decoder uses half; for a floor of 0, always."""
    return min_kl == 0.0 or (metrics["kl"] >= min_kl and metrics["code_gain"] >= min_kl / 2)


def rank_key(metrics: Mapping[str, float], min_kl: float) -> tuple[bool, float]:
    """What the best epoch, and the winner of a sweep, has most of: feasible first, then rank value."""
    return is_feasible(metrics, min_kl), rank_value(metrics, min_kl)

"""The registry of families."""

from collections.abc import Callable

from vae.config import Config
from vae.encoding import DataSpec
from vae.models.base import Vae
from vae.models.dense import Dense
from vae.models.hierarchical import Hierarchical
from vae.models.likelihood import Moments
from vae.models.recurrent import Recurrent
from vae.models.sequential import Sequential
from vae.models.transformer import Transformer

FAMILIES: dict[str, Callable[[Config, DataSpec, Moments | None], Vae]] = {
    "dense": Dense,
    "recurrent": Recurrent,
    "hierarchical": Hierarchical,
    "sequential": Sequential,
    "transformer": Transformer,
}

_LSTMS, _STEPWISE = ("recurrent", "hierarchical", "sequential"), tuple(name for name in FAMILIES if name != "dense")
FAMILIES_WITH: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("dense_width", "dense_depth"), ("dense",)),
    "rnn_width": _LSTMS,
    **dict.fromkeys(("rnn_layers", "recall_width", "weight_dropout"), ("recurrent", "sequential")),
    "crop": ("sequential",),
    **dict.fromkeys(("transformer_width", "transformer_layers", "transformer_heads"), ("transformer",)),
    **dict.fromkeys(("encoder_width", "encoder_dropout", "input_dropout", "step_dropout"), _STEPWISE),
}
"""The families that a hyperparameter means something to; those not named here mean something to all."""


def build_model(config: Config, spec: DataSpec, moments: Moments | None = None) -> Vae:
    """A new model of the config's family; `moments` of train set its initial output."""
    return FAMILIES[config.family](config, spec, moments)

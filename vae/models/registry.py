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


def build_model(config: Config, spec: DataSpec, moments: Moments | None = None) -> Vae:
    """A new model of the config's family; `moments` of train set its initial output."""
    return FAMILIES[config.family](config, spec, moments)

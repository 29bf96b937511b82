"""The registry of families."""

from vae.config import Config
from vae.encoding import DataSpec
from vae.models.base import Vae
from vae.models.dense import Dense
from vae.models.likelihood import Moments
from vae.models.recurrent import Recurrent

FAMILIES: dict[str, type[Vae]] = {"dense": Dense, "recurrent": Recurrent}


def build_model(config: Config, spec: DataSpec, moments: Moments | None = None) -> Vae:
    """A new model of the config's family; `moments` of train set its initial output."""
    return FAMILIES[config.family](config, spec, moments)

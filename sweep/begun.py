"""A sweep that has begun, read from its journal."""

from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from sweep.journal import mend, open_storage
from sweep.settings import Settings
from vae.encoding import DataSpec
from vae.errors import UserError


def read_settings(path: Path, name: str) -> Settings:
    """The settings of a sweep to go on with; its journal is made whole.

    Raises:
        UserError: the journal is absent, damaged or of another kind.
    """
    if not path.exists():
        raise UserError(f"{path.parent}: no sweep to resume; --resume takes the name of one in --results.")
    mend(path)
    return read_study(path, name)[0]


def read_study(path: Path, name: str) -> tuple[Settings, list[FrozenTrial]]:
    """The settings and trials of a sweep that has begun and may still run: its journal is left as it is.

    Raises:
        UserError: the journal is damaged or of another kind.
    """
    try:
        return load_study(path, name)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a readable study journal ({error}).") from None


def load_study(path: Path, name: str) -> tuple[Settings, list[FrozenTrial]]:
    """As `read_study`.

    Raises:
        KeyError, TypeError, ValueError: it is no journal of a sweep of this version.
    """
    storage = open_storage(path)
    if name not in optuna.get_all_study_names(storage):
        raise ValueError(f"it holds no sweep {name}; a sweep's folder must keep its name")
    study = optuna.load_study(study_name=name, storage=storage)
    asked = study.user_attrs["settings"]
    asked |= {name: tuple(asked.get(name, ())) for name in ("families", "warm_start")}
    return Settings(**{**asked, "spec": DataSpec(**asked["spec"])}), study.get_trials(deepcopy=False)

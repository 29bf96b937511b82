"""What earlier sweeps gave to a sweep, and their trials in its journal, each in a study beside the sweep's own.

There `--resume` and `optuna-dashboard` find them, and they count nowhere as trials of the sweep.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Earlier:
    """What an earlier sweep gives to a new one."""

    sweep: str
    points: list[dict[str, Any]]  # to try first, the best before the others
    trials: list[FrozenTrial]  # in the new sweep's space, with values that compare
    report: str  # a line for the user


def keep_trials(storage: BaseStorage, earlier: Sequence[Earlier]) -> None:
    """Writes the trials of earlier sweeps to a new sweep's journal."""
    for given in earlier:
        if given.trials:
            name = f"warm start from {given.sweep}"
            optuna.create_study(storage=storage, study_name=name, direction="maximize").add_trials(given.trials)


def kept_trials(storage: BaseStorage, sweep: str) -> list[FrozenTrial]:
    """The trials of earlier sweeps in a sweep's journal, under negative numbers: its own count from 0."""
    names = [name for name in optuna.get_all_study_names(storage) if name != sweep]
    trials = [trial for name in names for trial in optuna.load_study(study_name=name, storage=storage).get_trials()]
    for index, trial in enumerate(reversed(trials)):
        trial.number = -1 - index
    return trials

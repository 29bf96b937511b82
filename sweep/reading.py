"""A sweep as one looks at it, finished or still running; nothing of it is touched.

The journal is copied and the copy is opened: Optuna may lock, add to and end what it opens, and the journal of a
running sweep is that sweep's alone to write.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from sweep.begun import load_study
from sweep.journal import whole_lines
from sweep.record import TrialRecord
from sweep.results import SweepFolder
from sweep.rungs import rungs
from sweep.sampler import highest_rung, standing
from sweep.settings import Settings
from sweep.study import Study
from vae.config import FAMILY_NAMES
from vae.errors import UserError
from vae.ranking import is_feasible, rank_key


class TooFewError(Exception):
    """There are not enough trials yet for what was asked; the message says what is missing."""


@dataclass(frozen=True)
class Trial:
    """One trial: what the driver knew of it, and what Optuna drew."""

    record: TrialRecord
    frozen: FrozenTrial

    @property
    def number(self) -> int:
        """By which it is known."""
        return self.record.number

    @property
    def family(self) -> str:
        """Of models."""
        return self.record.family

    @property
    def failed(self) -> bool:
        """Whether it could not go on, or reported what is no number."""
        return self.record.state == "failed" or not all(map(math.isfinite, self.record.values.values()))

    @property
    def values(self) -> dict[int, float]:
        """Rank value at each rung; none of a failed trial, as the sampler sees it."""
        return {} if self.failed else self.record.values


def compared_at(trials: Sequence[Trial]) -> int | None:
    """The rung that the sampler compares trials at; None before any value."""
    return highest_rung([trial.frozen for trial in trials])


def ordered(trials: Sequence[Trial]) -> list[Trial]:
    """The best first, as the sampler orders them: by value at the rung that it compares at, then at lower ones."""
    rung = compared_at(trials)
    return sorted(trials, key=lambda trial: (not trial.failed, standing(trial.frozen, rung)), reverse=True)


@dataclass(frozen=True)
class Reading:
    """A sweep read back.

    Args:
        settings: what it was asked for.
        trials: all that were drawn, by number.
        summary: as last written, or empty.
        written: when the journal last changed.
    """

    settings: Settings
    trials: list[Trial]
    summary: dict[str, Any]
    written: datetime

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs at which trials compete."""
        return rungs(self.settings.max_epochs)

    @property
    def families(self) -> tuple[str, ...]:
        """Those that were drawn."""
        drawn = {trial.family for trial in self.trials}
        return tuple(name for name in FAMILY_NAMES if name in drawn)

    @property
    def requested(self) -> int:
        """Trials in all; the summary is younger than the first of them."""
        asked = self.summary.get("trials", {}).get("requested", 0)
        return max(int(asked), len(self.trials))

    @property
    def epochs(self) -> int:
        """Trained, in all."""
        return sum(trial.record.epoch for trial in self.trials)

    def of(self, family: str) -> list[Trial]:
        """The trials of a family."""
        return [trial for trial in self.trials if trial.family == family]

    def rank_values(self) -> list[float]:
        """Of all trials at all rungs.

        Raises:
            TooFewError: there is none.
        """
        values = [value for trial in self.trials for value in trial.values.values()]
        if not values:
            raise TooFewError("no trial has reached a rung yet")
        return values

    def compared_rungs(self) -> list[int]:
        """The first rung, and that which the sampler compares trials at, if it is another."""
        return sorted({self.rungs[0], compared_at(self.trials) or self.rungs[0]})

    def ranked(self) -> list[Trial]:
        """The trials that have a best epoch, the winner first."""
        return sorted((trial for trial in self.trials if _scored(trial)), key=self.rank_key, reverse=True)

    def winner(self) -> Trial | None:
        """Who has won final runs, not necessarily the first of those ranked; None if there were none yet."""
        best = self.summary.get("best", {})
        return next((trial for trial in self.ranked() if best.get("seeds") and trial.number == best["trial"]), None)

    def rank_key(self, trial: Trial) -> tuple[bool, float]:
        """What the winner has most of, at a trial's best epoch."""
        return rank_key(trial.record.best, self.settings.min_kl)

    def feasible(self, trial: Trial) -> bool:
        """Whether a trial's code says enough at its best epoch."""
        return is_feasible(trial.record.best, self.settings.min_kl)


def _scored(trial: Trial) -> bool:
    best = trial.record.best
    return trial.record.can_win and bool(best) and math.isfinite(best["val_elbo"]) and math.isfinite(best["kl"])


def read(folder: SweepFolder) -> Reading:
    """Reads a sweep.

    Raises:
        UserError: there is none of this name, nothing has been drawn yet, or the journal can't be read.
    """
    if not folder.journal.exists():
        raise UserError(f"{folder.place}/{folder.name}: no sweep there; pass the name of one in --results.")
    written = datetime.fromtimestamp(folder.journal.stat().st_mtime)  # naive, as Optuna's times are
    try:
        settings, trials = _read_copy(whole_lines(folder.journal), folder.name)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder.journal}: not a readable study journal ({error}); see --resume.") from None
    if not trials:
        raise UserError(f"{folder.path}: no trial has begun yet; try again in a minute.")
    return Reading(settings, trials, folder.read_summary(), written)


def _read_copy(content: bytes, name: str) -> tuple[Settings, list[Trial]]:
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "study.log"
        copy.write_bytes(content)
        settings, _ = load_study(copy, name)
        study = Study(copy, settings, 0)
        return settings, [Trial(study.records[frozen.number], frozen) for frozen in study.drawn()]

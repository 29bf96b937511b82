"""Optuna's proposals behind Ray Tune's Searcher."""

import sys
from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from sweep.record import TrialRecord
from sweep.scheduler import Asha


class StudySearcher(Searcher):  # type: ignore[misc]  # ray ships incomplete types
    """Hands out the trials that the scheduler wants run next, a trial of Ray's for each stay between rungs.

    How they end is told by the scheduler.

    Args:
        scheduler: says which trial is next.
        stopping: whether the sweep is asked to stop; then nothing more is proposed.
        newest_checkpoint: its place, of a trial that was begun before, by the prefix of its folders; or None.
        most: trials handed out at a time, now.
    """

    def __init__(
        self,
        scheduler: Asha,
        stopping: Callable[[], bool],
        newest_checkpoint: Callable[[str], str | None],
        most: Callable[[], int] = lambda: sys.maxsize,
    ) -> None:
        super().__init__()
        self._most = most
        self._scheduler, self._stopping, self._newest_checkpoint = scheduler, stopping, newest_checkpoint
        self._study = scheduler.study
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The config of the next trial; None while one that runs may bring more, then FINISHED."""
        if len(self._numbers) >= self._most():
            return None
        record = self._scheduler.next()
        if record is not None:
            self._numbers[trial_id] = record.number
            return self._config(record)
        return None if self._numbers and not self._stopping() else str(Searcher.FINISHED)

    def _config(self, record: TrialRecord) -> dict[str, Any]:
        found = self._newest_checkpoint(record.prefix) if record.state == "paused" else None
        record.state = "pending"
        return {
            "number": record.number,
            "turn": record.turn,
            "params": record.params,
            "seed": self._study.settings.seed,
            "checkpoint": found,
            "epoch": record.epoch,  # the last that is known; the checkpoint may be of a later one
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A stay is over; a trial that did not fail is stopped, completed or put off.

        What it has reported in this stay is on disk now; what it had reported before may not be.
        """
        number = self._numbers.pop(trial_id, None)
        if number is None:  # Ray tells of it twice where an end goes wrong
            return
        record = self._study.records[number]
        if record.state == "failed":
            return
        if record.state == "stopped":
            self._study.finish(record.number, "stopped")
        elif not error and "report" in (result or {}) and record.epoch >= self._study.settings.max_epochs:
            self._study.finish(record.number, "completed")
        else:
            record.state = "paused"

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's journal is always on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: `Study` reads its journal."""

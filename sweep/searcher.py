"""Optuna's proposals behind Ray Tune's Searcher."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from sweep.study import Study, TrialRecord


class StudySearcher(Searcher):  # type: ignore[misc]  # ray ships incomplete types
    """Hands out trials of a study; how they end is told by the scheduler, errors excepted.

    Args:
        study: proposes and records.
        stopping: whether the sweep is asked to stop; then nothing more is proposed.
        newest_checkpoint: of a trial that an earlier process began, or None.
    """

    def __init__(
        self,
        study: Study,
        stopping: Callable[[], bool],
        newest_checkpoint: Callable[[int], Path | None],
    ) -> None:
        super().__init__()
        self._study, self._stopping, self._newest_checkpoint = study, stopping, newest_checkpoint
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The config of the next trial, or FINISHED."""
        record = None if self._stopping() else self._study.ask()
        if record is None:
            return str(Searcher.FINISHED)
        self._numbers[trial_id] = record.number
        return self._config(record)

    def _config(self, record: TrialRecord) -> dict[str, Any]:
        found = self._newest_checkpoint(record.number) if record.state == "paused" else None
        return {
            "number": record.number,
            "params": record.params,
            "checkpoint": None if found is None else str(found),
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Records a trial that Ray gave up on."""
        del result
        number = self._numbers.pop(trial_id)
        if error and not self._study.records[number].ended:
            self._study.finish(number, "failed", "crashed; see error.txt in its folder under trials/")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's journal is always on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: `Study` reads its journal."""

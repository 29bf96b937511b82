"""ASHA: asynchronous successive halving (Li et al. 2020), the stopping kind.

Trials compete at rungs, epochs grace_period * eta^k. One goes on if it is in the best 1/eta of all that have reached
the rung so far; the first points, which have nobody to be compared with yet, are not judged before the second. Values
are recorded exactly at rungs, because trials report there (see `sweep.trial`).
"""

from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sweep import space
from sweep.study import Report, Study

REDUCTION_FACTOR = 3


def rungs(max_epochs: int, grace_period: int = 1, eta: int = REDUCTION_FACTOR) -> tuple[int, ...]:
    """The epochs at which trials compete, the last one max_epochs: 1, 3, 9, 27."""
    epochs = []
    while grace_period < max_epochs:
        epochs.append(grace_period)
        grace_period *= eta
    return (*epochs, max_epochs)


def survives(value: float, others: list[float], eta: int = REDUCTION_FACTOR) -> bool:
    """Whether a value is in the best 1/eta of all that reached the rung, itself (not in `others`) included."""
    better = sum(other > value for other in others)
    return better < max(1, (len(others) + 1) // eta)


def validates(epoch: int, at_rungs: tuple[int, ...]) -> bool:
    """Whether an epoch is scored on validation: the first three, every third, and rungs.

    Scoring a split costs up to a third of training on as many steps; each epoch of it would slow the search by a tenth.
    """
    return epoch <= REDUCTION_FACTOR or epoch % REDUCTION_FACTOR == 0 or epoch in at_rungs


class Asha(FIFOScheduler):  # type: ignore[misc]  # ray ships incomplete types
    """Decides on each report whether a trial goes on.

    Args:
        study: takes in every report and every end.
        stopping: whether the sweep is asked to stop; then every trial stops at its next report, resumable.
    """

    def __init__(self, study: Study, stopping: Callable[[], bool]) -> None:
        super().__init__()
        self.study = study
        self.rungs = rungs(study.settings.max_epochs)
        self._stopping = stopping
        self._first = len(space.first_points(study.settings.task))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Records the report; CONTINUE or STOP."""
        del tune_controller
        number, report = trial.config["number"], result["report"]
        end = self.judge(number, report)
        if end is not None:
            self.study.finish(number, end, report.failure)
            return str(TrialScheduler.STOP)
        if self._stopping():
            self.study.records[number].state = "paused"
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)

    def judge(self, number: int, report: Report) -> str | None:
        """Takes in a report; how the trial ends by it, or None if it goes on."""
        rung = report.epoch in self.rungs and report.failure is None
        self.study.report(number, report, rung)
        if report.failure is not None:
            return "failed"
        if report.epoch >= self.rungs[-1]:
            return "completed"
        early = number < self._first and report.epoch == self.rungs[0]
        if rung and not early and not survives(self._value(number, report.epoch), self._others(number, report.epoch)):
            return "stopped"
        return None

    def _value(self, number: int, epoch: int) -> float:
        return self.study.records[number].values[epoch]

    def _others(self, number: int, epoch: int) -> list[float]:
        records = self.study.records.values()
        return [r.values[epoch] for r in records if r.number != number and epoch in r.values]

"""ASHA: asynchronous successive halving (Li et al. 2020).

Trials compete at rungs, epochs eta^k, where eta is 3 (see `sweep.rungs`). Values are recorded exactly there, because
trials report there (see `sweep.trial`). Of two kinds:

- promotion: a trial that comes to a rung goes on if it is in the best 1/eta of all that have been there. Else it
  waits, with its checkpoint, and whoever is free first takes the best that waits and has come to be in the best 1/eta;
- stopping: a trial that is not in the best 1/eta when it comes ends. The first to come is, whatever its worth.

Those of other families are compared, and shown to the top, as of `sweep.standings`.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sweep import space
from sweep.crash import BLAMELESS, NODE, NODES_KILLED, Crash, Standstill, crash_of, is_tired, most_crashes
from sweep.record import Report, TrialRecord
from sweep.rungs import PROMOTION, REDUCTION_FACTOR, rungs
from sweep.study import Study
from vae.errors import UserError

_SHOWN = 0.5
"""Of the epochs, at most, that go into showing what families come to."""
MOST_WAITING = 16
"""At a rung, each with a checkpoint on disk. A rung's quota grows by one with every third arrival, so that the 17th
that waits could be promoted only if dozens that come after it were all worse."""


def _checked(report: Report) -> Report:
    """A report; of a failure if it ranks by what is no finite number, which would compare as if it were a good one."""
    for metrics in report.curve if report.failure is None else ():
        for name in ("val_elbo", "kl"):
            if not math.isfinite(value := metrics.get(name, 0.0)):
                return replace(report, failure=f"diverged in epoch {metrics['epoch']}: {name} is {value:g}")
    return report


def _refuse(failure: str, way: str) -> None:
    raise UserError(f"{failure}; {way}.")


class Stoppable(FIFOScheduler):  # type: ignore[misc]  # ray ships incomplete types
    """Lets nothing begin once the sweep is asked to stop; until then what was handed out first.

    Args:
        stopping: whether it is.
    """

    def __init__(self, stopping: Callable[[], bool]) -> None:
        super().__init__()
        self.stopping = stopping

    def place(self, trial: Trial) -> Any:
        """What those that wait for a worker are ordered by: their turns."""
        return trial.config["turn"]

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The next of those that wait for a worker; None, and they are given back, if the sweep is to stop."""
        waiting = [trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING]
        if not self.stopping():
            return min(waiting, key=self.place, default=None)
        for trial in waiting:
            tune_controller.stop_trial(trial)
        return None


class Asha(Stoppable):
    """Decides on each report whether a trial goes on, and which trial runs next.

    Args:
        study: takes in every report and every end; its settings name the kind.
        stopping: whether the sweep is asked to stop; then every trial stops at its next report, resumable.
        standstill: asked to stop when no trial can be trained.
        blames: whether nodes that died can be a trial's fault; not those that a market may have taken back.
    """

    def __init__(
        self, study: Study, stopping: Callable[[], bool], standstill: Standstill | None = None, blames: bool = True
    ) -> None:
        super().__init__(stopping)
        self.study = study
        self.rungs = rungs(study.settings.max_epochs)
        self._promotes = study.settings.scheduler == PROMOTION
        self._first = len(space.first_points(study.settings.task))
        self._standstill, self._blames = standstill or Standstill(_refuse), blames

    def next(self) -> TrialRecord | None:
        """The trial to run next: one that was cut off, or is promoted, or is new; None if there is none now."""
        if self.stopping():
            return None
        return (
            self._cut_off(lambda record: self._held(record) or is_tired(record))
            or self._promoted()
            or self.study.ask(self._goal(self.rungs[0]) if self._promotes else None)
            or self._cut_off(self._held)
        )

    def _cut_off(self, held: Callable[[TrialRecord], bool]) -> TrialRecord | None:
        """One that was cut off; one of which a crash came before its end was told ends now."""
        while (record := self.study.cut_off(held)) is not None:
            if not record.stops:
                return record
            self.study.finish(record.number, "stopped")
        return None

    def _held(self, record: TrialRecord) -> bool:
        """Whether a trial under which two nodes died waits: while another suspect trains, a loss would tell nothing."""
        suspect = self._blames and record.crashes.get(NODE, 0) >= NODES_KILLED
        return suspect and any(NODE in other.crashes for other in self.study.under_way())

    def place(self, trial: Trial) -> tuple[bool, bool, int]:
        """What was cut off by a crash first, then what goes on, then what begins; each by turns."""
        record = self.study.records[trial.config["number"]]
        return not record.crashes, record.epoch == 0, trial.config["turn"]

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Records the report; CONTINUE or STOP. A trial that waits is stopped for Ray, and comes as another later."""
        del tune_controller
        number, report = trial.config["number"], result["report"]
        end = self.judge(number, report)
        if end is None and not self.stopping():
            return str(TrialScheduler.CONTINUE)
        if end is None:
            self.study.records[number].state = "paused"
        elif end == "failed":  # other ends only once a checkpoint is on disk, see `sweep.searcher`
            self.study.finish(number, end, self.study.records[number].failure)
        elif end == "stopped":
            self.study.records[number].state = end
        return str(TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Ray gave a trial up."""
        del tune_controller
        self.crashed(trial.config["number"], crash_of(trial))

    def crashed(self, number: int, crash: Crash) -> None:
        """Puts a trial back, unless it is to blame, or what is was so too often."""
        record = self.study.records[number]
        if record.ended:
            return
        count = record.crash(crash.blamed)
        self._standstill.check(crash, count, self._others_train(record))
        guilty = crash.blamed == NODE and self._blames and self._kills(record)
        if count <= most_crashes(crash.blamed) and not guilty:
            self.study.put_back(number)
        else:
            record.lost = crash.blamed in BLAMELESS and not guilty
            self.study.finish(number, "failed", crash.reason if count == 1 else f"{crash.reason} ({count} times)")

    def _others_train(self, record: TrialRecord) -> bool:
        """Whether any does that has not crashed of late by what this one may have crashed by."""
        others = (other for other in self.study.under_way() if other is not record and other.state == "running")
        return any(not other.crashes for other in others)

    def _kills(self, record: TrialRecord) -> bool:
        """Whether a trial is the only suspect of those that trained where nodes died."""
        lost = record.crashes[NODE]
        if lost < NODES_KILLED or record.state != "running":  # else its worker was on a node that was gone already
            return False
        handed_out = {other.number for other in self.study.under_way()}
        suspects = (other for other in self.study.records.values() if NODE in other.crashes and not other.ended)
        return not any(
            other.crashes[NODE] >= lost or other.number in handed_out for other in suspects if other is not record
        )

    def judge(self, number: int, report: Report) -> str | None:
        """Takes in a report; how the trial ends by it, "paused" if it waits, or None if it goes on."""
        report = _checked(report)
        rung = report.epoch in self.rungs and report.failure is None
        self.study.report(number, report, rung, lambda record: not self._promotes and self._is_outdone(record))
        if report.failure is not None:
            return "failed"
        if report.epoch >= self.rungs[-1]:
            return "completed"
        if not rung:
            return None
        record = self.study.records[number]
        if self._promotes:
            return self._at_rung(record)
        return "stopped" if record.stops else None

    def _is_outdone(self, record: TrialRecord) -> bool:
        """Whether a trial that has come to a rung is not among the best there; at the top none is."""
        return record.epoch < self.rungs[-1] and not (self._leads(record) or self._is_among_best(record, 1))

    def _at_rung(self, record: TrialRecord) -> str | None:
        if record.epoch < record.goal:  # it had been here when it was cut off
            return None
        if self._earns_promotion(record):
            self._promote(record)
            return None
        return self._queue(record)

    def _queue(self, record: TrialRecord) -> str:
        """Lets a trial wait; of too many that wait at a rung the last ends."""
        waiting = [*(other for other in self.study.waiting() if other.epoch == record.epoch), record]
        last = min(waiting, key=self._forecast)
        if len(waiting) <= MOST_WAITING:
            return "paused"
        if last is record:
            return "stopped"
        self.study.finish(last.number, "stopped")
        return "paused"

    def _promoted(self) -> TrialRecord | None:
        """The best of the highest rung where one that waits has earned promotion."""
        waiting = self.study.waiting() if self._promotes else []
        for epoch in reversed(self.rungs[:-1]):
            there = [record for record in waiting if record.epoch == epoch]
            best = next(filter(self._earns_promotion, sorted(there, key=self._forecast, reverse=True)), None)
            if best is not None:
                return self._promote(best)
        return None

    def _promote(self, record: TrialRecord) -> TrialRecord:
        return self.study.promote(record.number, self._goal(self.rungs[self.rungs.index(record.epoch) + 1]))

    def _goal(self, rung: int) -> int:
        """Where a trial waits that goes on to a rung: at the top none does."""
        return rung if rung < self.rungs[-1] else rung + 1

    def _forecast(self, record: TrialRecord) -> tuple[float, int]:
        """What those at a rung are ordered by; of equals the first is better."""
        gain = self.study.standings.gain(record.family, record.epoch)
        return record.values[record.epoch] + gain, -record.turn

    def _earns_promotion(self, record: TrialRecord) -> bool:
        return self._is_among_best(record, 0) or (self._leads(record) and self._may_lead(record))

    def _may_lead(self, record: TrialRecord) -> bool:
        """Whether a trial may show what its family comes to: all have begun, and half of the epochs are left to others.

        What went into that are the furthest trials of families, but for the one that has come furthest anyway.
        """
        reached = {family: self.study.standings.reached(family) for family in self.study.settings.families}
        for other in self.study.under_way():
            reached[other.family] = max(reached[other.family], min(other.goal, self.rungs[-1]))
        del reached[record.family]
        shown = self.rungs[self.rungs.index(record.epoch) + 1] + sum(reached.values()) - max(reached.values())
        return len(self.study.records) >= self._first and shown <= _SHOWN * self.study.standings.epochs

    def _is_among_best(self, record: TrialRecord, least: int) -> bool:
        """Whether a trial is in the best 1/eta of all that have been to its rung, or in the best `least`."""
        standings, rung = self.study.standings, record.epoch
        better = standings.better(record.family, rung, record.values[rung])
        return better < max(least, standings.count(rung) // REDUCTION_FACTOR)

    def _leads(self, record: TrialRecord) -> bool:
        families = self.study.settings.families
        return len(families) > 1 and self.study.standings.leads(record.number, record.family, record.epoch)

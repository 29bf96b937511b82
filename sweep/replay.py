"""Plays a search against learning curves, with simulated workers, in simulated seconds: hundreds of sweeps in minutes.

The searchers and schedulers are the very objects that a sweep uses, and are called as Ray Tune calls them, before a
worker is free. Left out is what depends on the machine: a trial's start, checkpoints.
"""

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from sweep.record import Report
from vae.ranking import rank_key, rank_value

METRIC = "rank_value"
"""Under which searchers and schedulers other than ours find the value that is maximised."""


@dataclass(frozen=True)
class Point:
    """An epoch that was scored: seconds of training so far, and metrics on validation."""

    epoch: int
    seconds: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Curve:
    """All that is known of a configuration's training; why it could not go on, if so, and after how long."""

    points: tuple[Point, ...]
    failure: str | None = None
    seconds: float = 0.0  # of training until it failed


@dataclass
class Run:
    """A stay of a trial with a worker."""

    params: dict[str, Any]
    trial: Any  # as the search knows it
    epoch: int = 0
    curve: Curve = field(default_factory=lambda: Curve(()))

    def upcoming(self) -> tuple[Point | None, float]:
        """The next point, None if it fails before, and the seconds it takes."""
        before = [point.seconds for point in self.curve.points if point.epoch <= self.epoch]
        after = [point for point in self.curve.points if point.epoch > self.epoch]
        spent = before[-1] if before else 0.0
        return (after[0], after[0].seconds - spent) if after else (None, max(0.0, self.curve.seconds - spent))


class Search(Protocol):
    """What proposes configurations and stops them."""

    def next(self) -> Run | None:
        """What a free worker does; None if there is nothing now."""

    def report(self, run: Run, point: Point) -> bool:
        """Takes in a point; whether the run goes on."""

    def fail(self, run: Run, reason: str) -> None:
        """A run could not go on."""


class TuneSearch:
    """A searcher and a scheduler of Ray Tune, either ours or stock.

    Args:
        searcher: its configs have the key "params".
        scheduler: of trials.
        min_kl: the floor of the rank value, nats a time step.
    """

    def __init__(self, searcher: Searcher, scheduler: TrialScheduler, min_kl: float) -> None:
        self._searcher, self._scheduler, self._min_kl = searcher, scheduler, min_kl
        self._count = itertools.count()
        self._epochs: dict[Any, int] = {}

    def next(self) -> Run | None:
        """As Ray Tune asks when a slot is free."""
        trial_id = f"{next(self._count):08d}"
        config = self._searcher.suggest(trial_id)
        if config is None or config == Searcher.FINISHED:
            return None
        trial = Trial("replay", config=config, trial_id=trial_id, stub=True)
        self._scheduler.on_trial_add(None, trial)
        return Run(config["params"], trial, self._epochs.get(self._key(trial), 0))

    @staticmethod
    def _key(trial: Trial) -> Any:
        """Which trial a run belongs to: ours come back under their number."""
        return trial.config.get("number", trial.trial_id)

    def report(self, run: Run, point: Point) -> bool:
        """The scheduler decides; the searcher is told."""
        trial, metrics = run.trial, {"epoch": point.epoch, **point.metrics}
        self._epochs[self._key(trial)] = point.epoch
        result = {
            METRIC: rank_value(metrics, self._min_kl),
            "training_iteration": point.epoch,
            "report": Report(point.epoch, [metrics], metrics, point.seconds, "replay"),
        }
        if self._scheduler.on_trial_result(None, trial, result) != TrialScheduler.STOP:
            self._searcher.on_trial_result(trial.trial_id, result)
            return True
        self._scheduler.on_trial_complete(None, trial, result)
        self._searcher.on_trial_complete(trial.trial_id, result)
        return False

    def fail(self, run: Run, reason: str) -> None:
        """Ours is told by a report, as `sweep.trial` does; others see a trial that raised."""
        trial = run.trial
        if "number" in trial.config:
            report = Report(run.epoch, [], {}, 0.0, "replay", reason)
            self._scheduler.on_trial_result(None, trial, {"report": report})
            self._searcher.on_trial_complete(trial.trial_id)
        else:
            self._scheduler.on_trial_error(None, trial)
            self._searcher.on_trial_complete(trial.trial_id, error=True)


@dataclass(frozen=True)
class Moment:
    """Where a search stands after a point."""

    seconds: float
    epochs: int  # trained by all, that in which one failed included
    best: float  # rank value of the best feasible point so far


class _Prepared:
    """Runs that are asked for before a worker is free."""

    def __init__(self, search: Search, ahead: int) -> None:
        self._search, self._ahead = search, ahead
        self._runs: list[Run] = []

    def take(self, idle: int) -> list[Run]:
        """Those that idle workers begin: what goes on before what is new, see `sweep.scheduler`."""
        while len(self._runs) < idle + self._ahead and (found := self._search.next()) is not None:
            self._runs.append(found)
        self._runs.sort(key=lambda run: run.epoch == 0)
        taken, self._runs = self._runs[:idle], self._runs[idle:]
        return taken


def replay(
    search: Search,
    curve_of: Callable[[dict[str, Any]], Curve],
    workers: int,
    most_epochs: int,
    min_kl: float,
    enough: float = math.inf,
    ahead: int = 0,
) -> list[Moment]:
    """Runs a search until so many epochs are trained, it has found enough, or it has nothing more to run.

    Args:
        search: what proposes and stops.
        curve_of: the curve of params.
        workers: each trains one trial at a time.
        most_epochs: of all trials, about.
        min_kl: the floor of the rank value, nats a time step.
        enough: a rank value.
        ahead: runs that are asked for before a worker is free.

    Returns:
        A moment for each new best.
    """
    moments: list[Moment] = []
    queue: list[tuple[float, int, Run, Point | None]] = []
    order = itertools.count()
    prepared = _Prepared(search, ahead)
    now, epochs, best, idle = 0.0, 0, -math.inf, workers

    def schedule(run: Run) -> None:
        point, seconds = run.upcoming()
        heapq.heappush(queue, (now + seconds, next(order), run, point))

    while epochs < most_epochs and best < enough:
        for run in prepared.take(idle):
            run.curve = curve_of(run.params)
            idle -= 1
            schedule(run)
        if not queue:
            break
        now, _, run, point = heapq.heappop(queue)
        if point is None:
            search.fail(run, run.curve.failure or "ended")
            epochs, idle = epochs + 1, idle + 1
            continue
        epochs, run.epoch = epochs + point.epoch - run.epoch, point.epoch
        feasible, value = rank_key(point.metrics, min_kl)
        if feasible and value > best:
            best = value
            moments.append(Moment(now, epochs, best))
        if search.report(run, point):
            schedule(run)
        else:
            idle += 1
    return moments

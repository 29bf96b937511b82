"""The study: what is known of every trial, kept in an Optuna journal that outlives any crash.

The journal is the only record that `--resume` reads: params, the values at rungs, how each trial ended. Nothing is
unpickled. A trial is known by its number.
"""

import copy
import itertools
import math
import random
import time
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweep import space
from sweep.earlier import Earlier, keep_trials, kept_trials
from sweep.journal import lock_of, open_storage
from sweep.proposal import Given, key_of, propose
from sweep.record import STATES, Report, TrialRecord, known
from sweep.rungs import rungs
from sweep.sampler import RungSampler, informs, is_drawn
from sweep.settings import FINALISTS, Settings
from sweep.standings import Standings
from vae.ranking import rank_key, rank_value

MOST_LOOKED_AT, BEST_LOOKED_AT, _NEWEST_LOOKED_AT = 1000, 50, 300
"""Trials that a proposal looks at: more than what it is fitted to, but no longer all, which would take ever longer."""

_Place = tuple[tuple[bool, float], int]
"""Where a trial stands: its rank key, and its number below 0, for of equals the first is better."""

_ENDS = {"stopped": TrialState.PRUNED, "completed": TrialState.COMPLETE, "failed": TrialState.FAIL}
_STATES = {state: name for name, state in _ENDS.items()} | {TrialState.RUNNING: "paused"}


class Study:
    """All trials of a sweep. One at a time is opened of a journal, see `SweepFolder.driven`.

    Args:
        path: the journal file.
        settings: of the sweep; but for its final runs must be those of the journal if it exists.
        most: trials in all; None: as many as there is time for. See also `go_on`.
        earlier: what a new sweep begins with; one that is read back has it in its journal.
    """

    def __init__(self, path: Path, settings: Settings, most: int | None, earlier: Sequence[Earlier] = ()) -> None:
        self.settings = settings
        self.most = most
        self.records: dict[int, TrialRecord] = {}
        if new := not path.exists():
            _begin(path, settings, earlier)
        lock_of(path).unlink(missing_ok=True)  # of a driver that was killed, for this one is alone
        storage = open_storage(path)
        self._optuna = optuna.load_study(study_name=settings.name, storage=storage)
        if not new:
            self._optuna.set_user_attr("settings", asdict(settings))  # its final runs may be others now
        self.standings = Standings(rungs(settings.max_epochs))
        self._ranked: list[_Place] = []  # the best last
        self._failed: list[int] = []
        self._drawn_keys: set[frozenset[tuple[str, Any]]] = set()
        self._turns = 0
        self._live: dict[int, optuna.trial.Trial] = {}
        self._cut_off: list[int] = []
        self._read_back()
        attributes = self._optuna.user_attrs
        self.asked_for: int | None = attributes.get("most")  # by the last start that searched; as `most`
        self.over = bool(attributes.get("over"))  # whether it came to the search's end
        self.settled: set[int] = set()  # trials that wait, though they count as stopped: the search is over
        if self.over:
            self._settle()
        self._first_points = attributes.get("first_points", [])
        self._earlier = kept_trials(storage, settings.name)
        self._drawn_keys.update(key_of(trial.params) for trial in self._earlier)

    def _read_back(self) -> None:
        for frozen in self._optuna.get_trials(deepcopy=False):
            if not is_drawn(frozen):  # of a version that drew in several records
                continue
            kept, values = known(frozen.user_attrs["record"]), dict(frozen.intermediate_values)
            record = TrialRecord(frozen.number, state=_STATES[frozen.state], values=values, **kept)
            self.records[frozen.number] = record
            self._stand(record)
            self._drawn_keys.add(key_of(frozen.params))
            self._failed += [record.number] if record.state == "failed" else []
            for rung in sorted(values) if record.state != "failed" else ():
                self.standings.add(record.number, record.family, values, rung)
        cut_off = [record for record in self.records.values() if record.state == "paused" and not record.waits]
        self._cut_off = [record.number for record in sorted(cut_off, key=lambda record: record.turn)]
        self._turns = max((record.turn for record in self.records.values()), default=0)
        self._left = list(self.records.values())

    def go_on(self, most: int | None) -> None:
        """Lets the search go on, to so many trials; keeps that, so that another start knows."""
        self.most = self.asked_for = most
        self.over = False
        self._optuna.set_user_attr("over", False)
        self._optuna.set_user_attr("most", most)
        settled = [self.records[number] for number in self.settled]
        self._left = [*self._open(), *settled]
        for record in settled:
            record.state = "paused"
        self.settled.clear()

    def end(self) -> None:
        """The search has come to its end, by its trials, its time or its patience: final runs are next."""
        self.over = True
        self._optuna.set_user_attr("over", True)
        self._settle()

    def _settle(self) -> None:
        """Stops the trials that wait, for nothing is left that could promote them.

        In the journal they wait on, and keep their checkpoints: if the sweep is to have more trials one day, these may
        be promoted after all.
        """
        for record in self.waiting():
            record.state = "stopped"
            self.settled.add(record.number)

    def miss(self, trained: Callable[[str], int], count: int) -> None:
        """Has those of the best trials trained again that wait, but were not saved: a crash came first.

        Args:
            trained: epochs in the newest checkpoint of a trial, by the prefix of its folders.
            count: how many are looked at.
        """
        for record in self.top(count):
            if record.waits and (saved := trained(record.prefix)) < record.epoch:
                record.epoch = saved
                self._cut_off.append(record.number)

    def cut_off(self, held: Callable[[TrialRecord], bool] = lambda _: False) -> TrialRecord | None:
        """The next of the trials that a crash or an earlier process left in training, in the order of their turns.

        Args:
            held: whether a trial has to be left where it is for now.
        """
        number = next((number for number in self._cut_off if not held(self.records[number])), None)
        if number is None:
            return None
        self._cut_off.remove(number)
        return self.records[number]

    def under_way(self) -> list[TrialRecord]:
        """The trials that are handed out: they train, or wait for a worker."""
        cut_off = set(self._cut_off)
        return [record for record in self._open() if not (record.waits or record.number in cut_off)]

    def _open(self) -> list[TrialRecord]:
        """The trials that have not ended, without a look at the thousands that have."""
        self._left = [record for record in self._left if not record.ended]
        return self._left

    def ask(self, goal: int | None = None) -> TrialRecord | None:
        """A new trial, to be trained for `goal` epochs before it competes (None: it never does); None if all are."""
        if self.most is not None and len(self.records) >= self.most:
            return None
        trials = self._optuna.get_trials(deepcopy=False)
        drawn = self._draw(self._informing(trials))
        self._turns += 1
        params, goal = self._suggest(drawn), goal or self.settings.max_epochs + 1
        record = TrialRecord(len(trials), params, goal=goal, turn=self._turns)
        self._optuna.add_trial(  # in one record of the journal, so that no crash leaves half a trial
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=drawn.params,
                distributions=drawn.distributions,
                user_attrs={"record": record.kept()},
            )
        )
        self.records[record.number] = record
        self._left.append(record)
        self._drawn_keys.add(key_of(drawn.params))
        return record

    def _informing(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """What proposals are made by: this sweep's trials, and earlier sweeps' that came further than its own try."""
        own = [self._forecast(trial) for trial in self.telling(trials) if informs(trial)]
        if not self._earlier:
            return own
        reached = {key_of(trial.params): _reached(trial, math.inf) for trial in own}
        return [*(given for given in self._earlier if _reached(given) > reached.get(key_of(given.params), -1)), *own]

    def _forecast(self, trial: FrozenTrial) -> FrozenTrial:
        """A trial whose values are what it may come to at the top, so that those of all families compare."""
        if not trial.intermediate_values:
            return trial
        forecast, family = copy.copy(trial), trial.params["family"]
        forecast.intermediate_values = {
            rung: value + self.standings.gain(family, rung) for rung, value in trial.intermediate_values.items()
        }
        return forecast

    def telling(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """All trials; of very many the best at each rung, the newest, the newest that failed, and others at random."""
        if len(trials) <= MOST_LOOKED_AT:
            return trials
        at_rungs = rungs(self.settings.max_epochs)
        telling = {number for rung in at_rungs for number in self.standings.best(rung, BEST_LOOKED_AT)}
        telling.update(self._failed[-_NEWEST_LOOKED_AT:], range(len(trials) - _NEWEST_LOOKED_AT, len(trials)))
        for number in random.Random(len(trials)).sample(range(len(trials)), MOST_LOOKED_AT):
            if len(telling) < MOST_LOOKED_AT:
                telling.add(number)
        return [trials[number] for number in sorted(telling)]

    def _draw(self, seen: list[FrozenTrial]) -> optuna.trial.Trial:
        """A first point, or a proposal; seeded by the trial, so that a resumed sweep keeps to its course."""
        number, points = len(self.records), self._first_points
        seed = (self.settings.seed * 1_000_003 + number) % 2**32
        if number >= len(points):
            failing = None if len(seen) >= number else self._share_failing()
            proposed = propose(seen, self._suggest, seed, self._drawn_keys, failing)
            return optuna.create_study(sampler=Given(proposed)).ask()
        scratch = optuna.create_study(sampler=RungSampler(seen, seed))
        scratch.enqueue_trial(points[number])
        return scratch.ask()

    def _share_failing(self) -> float:
        """Of all trials but those that are lost."""
        lost = sum(self.records[number].lost for number in self._failed)
        return (len(self._failed) - lost) / max(1, len(self.records) - lost)

    def _suggest(self, trial: optuna.trial.Trial) -> dict[str, Any]:
        return space.suggest(trial, self.settings.task)

    def promote(self, number: int, goal: int) -> TrialRecord:
        """Lets a trial go on to the rung `goal`."""
        record = self.records[number]
        if record.waits:
            self._turns += 1
            record.turn = self._turns
        record.goal = goal
        self._trial(number).set_user_attr("record", record.kept())
        return record

    def report(
        self, number: int, report: Report, rung: bool, stops: Callable[[TrialRecord], bool] = lambda _: False
    ) -> None:
        """Takes in a report; at a rung it goes to the journal, where the sampler sees it.

        Args:
            number: of the trial.
            report: of one epoch or more.
            rung: whether the last of them is one.
            stops: whether the trial ends there, told once its value is known.
        """
        record = self.records[number]
        record.node, record.failure, record.reported_at = report.node, report.failure, time.time()
        if report.failure is not None and report.epoch < record.epoch:  # it could not be set up again
            return
        record.reach(report.epoch)
        record.best, record.train_seconds = report.best, report.train_seconds
        self._stand(record)
        scored = [metrics for metrics in report.curve if "val_elbo" in metrics]
        record.last = scored[-1] if scored else record.last
        if rung:
            trial = self._trial(number)
            if report.epoch not in record.values:  # else it had been here before it was cut off
                value = record.values[report.epoch] = rank_value(record.last, self.settings.min_kl)
                self.standings.add(number, record.family, record.values, report.epoch)
                trial.report(value, report.epoch)
            if record.judged < report.epoch:
                record.judged, record.stops = report.epoch, stops(record)
            trial.set_user_attr("record", record.kept())

    def finish(self, number: int, state: str, failure: str | None = None) -> None:
        """Ends a trial as stopped, completed or failed."""
        record = self.records[number]
        record.state, record.failure = state, failure
        if state == "failed":
            insort(self._failed, number)
            # It would take the places of others that could be promoted.
            self.standings.remove(number, record.family, record.values)
        trial = self._trial(number)
        trial.set_user_attr("record", record.kept())
        final = record.values[record.epoch] if state == "completed" else None
        self._optuna.tell(trial, final, state=_ENDS[state])

    def put_back(self, number: int) -> None:
        """A trial was cut off by a crash; it goes on from its newest checkpoint, in a turn of its own."""
        record = self.records[number]
        record.state = "paused"
        if not record.waits:
            self._turns += 1
            record.turn = self._turns
            self._cut_off.append(number)
        self._trial(number).set_user_attr("record", record.kept())

    def _trial(self, number: int) -> optuna.trial.Trial:
        """The live trial; one from an earlier process is taken up again."""
        if number not in self._live:
            identifier = self._optuna._storage.get_trial_id_from_study_id_trial_number(self._optuna._study_id, number)
            self._live[number] = optuna.trial.Trial(self._optuna, identifier)
        return self._live[number]

    def drawn(self) -> list[FrozenTrial]:
        """The trials as Optuna has them: what was drawn, from which ranges, and when."""
        return [trial for trial in self._optuna.get_trials(deepcopy=False) if trial.number in self.records]

    def rank_key(self, metrics: Mapping[str, float]) -> tuple[bool, float]:
        """What the winner has most of: feasible first, then rank value."""
        return rank_key(metrics, self.settings.min_kl)

    def top(self, count: int) -> list[TrialRecord]:
        """The best trials by their best epoch, without those that failed by their params."""
        return self._best(count, attrgetter("can_win"))

    @property
    def best_trains_on(self) -> bool:
        """Whether the best trial runs, or will before anything new does."""
        return any(not (record.ended or record.waits) for record in self.top(1))

    def finalists(self) -> list[TrialRecord]:
        """The best trials that reached the top rung, after those that are better without; the best first."""
        whole = self._best(FINALISTS, lambda record: record.state == "completed")
        better = itertools.takewhile(lambda record: record.state != "completed", self.top(FINALISTS))
        return [*better, *whole][:FINALISTS]

    def _best(self, count: int, counts: Callable[[TrialRecord], bool]) -> list[TrialRecord]:
        """The best of those that count, the best first."""
        ranked = (self.records[-number] for _, number in reversed(self._ranked))
        return list(itertools.islice(filter(counts, ranked), count))

    def _stand(self, record: TrialRecord) -> None:
        """Takes note of where a trial stands among others, by its best epoch."""
        if record.standing is not None:
            del self._ranked[bisect_left(self._ranked, (record.standing, -record.number))]
        key = self.rank_key(record.best) if record.best else (False, math.nan)
        record.standing = None if math.isnan(key[1]) else key
        if record.standing is not None:
            insort(self._ranked, (record.standing, -record.number))

    def put_off(self) -> None:
        """Takes note that nothing runs any more: what has not ended is paused."""
        for record in self.records.values():
            record.state = record.state if record.ended else "paused"

    def waiting(self) -> list[TrialRecord]:
        """The trials that have been to a rung, and go on only if they come to be among the best there."""
        return [record for record in self._open() if record.state == "paused" and record.waits]

    @property
    def train_seconds(self) -> float:
        """Of all trials."""
        return float(sum(map(attrgetter("train_seconds"), self.records.values())))

    @property
    def epochs_trained(self) -> int:
        """By all trials."""
        return int(sum(map(attrgetter("epoch"), self.records.values())))

    @property
    def requested(self) -> int:
        """Trials asked for; where no number was, those begun so far."""
        return max(self.most or 0, len(self.records))

    @property
    def tried(self) -> int:
        """Trials that have ended, or wait."""
        return sum(record.ended or record.waits for record in self.records.values())

    @property
    def share_tried(self) -> float:
        """Of the trials asked for; 0 if no number was."""
        return self.tried / (self.most or math.inf)

    def counts(self) -> dict[str, int]:
        """Trials by state; they sum to those requested."""
        counts = dict.fromkeys(STATES, 0) | Counter(map(attrgetter("state"), self.records.values()))
        counts["pending"] += self.requested - len(self.records)
        return counts


def _reached(trial: FrozenTrial, failed: float = 0) -> float:
    """The highest rung that a trial has been to; of one that has failed `failed`."""
    return failed if trial.state == TrialState.FAIL else max(trial.intermediate_values, default=0)


def _begin(path: Path, settings: Settings, earlier: Sequence[Earlier]) -> None:
    """Makes the journal of a new sweep, whole or not at all."""
    points = space.first_points(settings.task) + [point for given in earlier for point in given.points]
    scratch = path.with_name(f".{path.name}")
    scratch.unlink(missing_ok=True)
    lock_of(scratch).unlink(missing_ok=True)
    storage = open_storage(scratch)
    study = optuna.create_study(storage=storage, study_name=settings.name, direction="maximize")
    study.set_user_attr("settings", asdict(settings))
    study.set_user_attr("first_points", points)
    keep_trials(storage, earlier)
    if earlier:
        study.set_user_attr("warm_start", [given.report for given in earlier])
    scratch.replace(path)

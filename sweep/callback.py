"""What happens between Ray Tune's events: checkpoints kept, the winner exported, files and the view kept current."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.tune import Callback
from ray.tune.result import SHOULD_CHECKPOINT

from sweep.board import Board
from sweep.checkpoints import read_metrics
from sweep.crash import STORAGE, crash_of
from sweep.journal import Snapshots
from sweep.live import LiveView
from sweep.record import Report, TrialRecord
from sweep.results import SweepFolder, summarise
from sweep.study import Study
from sweep.versions import revision, versions
from vae import checkpoint
from vae.errors import UserError
from vae.store import fetched

KEPT_TRIALS = 5
"""Checkpoints of ended trials that are kept: the top few of the sweep; and those of which final runs are made.

Of those that wait too, also once the search is over, in case that it is extended.
"""
_AGAIN_SECONDS = 10.0
"""Between tries to read what a store refused to give, at least."""
SAVE_SECONDS = 300.0
"""Longest that a trial trains unsaved between rungs."""
_WRITE_SECONDS = 2.0
"""Between rewritings of the table of all trials, at least: the more there are, the longer each takes."""


@dataclass
class Clock:
    """When things happened, in seconds since the epoch; what earlier starts of the sweep took comes on top."""

    command_started: float
    earlier: dict[str, Any]
    first_trial_started: float | None = None
    last_trial_ended: float | None = None

    def times(self, slots: int, train_seconds: float) -> dict[str, float | None]:
        """The times of `summary.json`.

        Args:
            slots: the most trials at a time; those of earlier starts are what their share of training tells.
            train_seconds: of all trials, by all starts.
        """
        now, began, earlier = time.time(), self.first_trial_started, self.earlier
        known = {name: earlier.get(name) for name in ("search_seconds", "startup_seconds", "train_share")}
        if began:
            here, share = (self.last_trial_ended or now) - began, earlier.get("train_share")
            whole = here * slots + (earlier["train_seconds"] / share if share else 0.0)
            known = {
                "search_seconds": (earlier.get("search_seconds") or 0.0) + here,
                "startup_seconds": earlier.get("startup_seconds") or began - self.command_started,
                "train_share": train_seconds / whole if whole else None,
            }
        return known | {"wall_seconds": (earlier.get("wall_seconds") or 0.0) + now - self.command_started}


class SweepCallback(Callback):  # type: ignore[misc]  # ray ships incomplete types
    """Keeps the sweep's folder and view current while Ray Tune runs.

    Args:
        study: the trials.
        folder: where they are written.
        view: shown to the user.
        board: TensorBoard.
        clock: times.
        slots: the most trials at a time so far.
        baseline: of the summary.
        on_lead: called when another trial leads, or the same by more; or none, for the leader has failed.
    """

    def __init__(
        self,
        study: Study,
        folder: SweepFolder,
        view: LiveView,
        board: Board,
        clock: Clock,
        slots: Callable[[], int],
        baseline: dict[str, float],
        on_lead: Callable[[], None],
    ) -> None:
        self._study, self._folder, self._view, self._board = study, folder, view, board
        self._clock, self._slots, self._baseline = clock, slots, baseline
        self._on_lead, self._led = on_lead, self._lead()
        self._snapshots = Snapshots(folder.journal)
        self._saved_at: dict[int, float] = {}
        self._dropped: set[int] = set()
        self._behind = False  # whether there is a checkpoint that could not be exported
        self._retried_at = self._written = 0.0
        self._finals: dict[str, int] | None = None  # how far they are
        self._outdated = False  # the table and the summary, by a trial that has begun or ended, or is better
        # An earlier start of this sweep may have exported a winner.
        self.best = self._read_best() if (folder.best / checkpoint.METRICS).exists() else None

    def _read_best(self) -> dict[str, Any]:
        """`best` of the summary, before the test."""
        metrics = checkpoint.read_json(self._folder.best / checkpoint.METRICS)
        number = metrics["provenance"]["trial"]
        feasible, _ = self._study.rank_key(metrics)
        names = ("epoch", "val_elbo", "kl", "code_gain", "active_units")
        return {
            "trial": number,
            "params": self._params(number),
            "feasible": feasible,
            **{name: metrics[name] for name in names},
            "seeds": metrics["provenance"].get("seeds"),
        }

    @property
    def winner(self) -> int | None:
        """The trial that has won earlier final runs, if any."""
        return self.best["trial"] if self.best is not None and self.best["seeds"] is not None else None

    @property
    def _decided(self) -> bool:
        """Whether final runs have chosen the winner, and the next will."""
        return self.winner is not None and self._study.settings.final_seeds > 1

    @property
    def _to_beat(self) -> dict[str, Any] | None:
        """The winner so far, unless its trial has failed since."""
        record = self._study.records.get(self.best["trial"]) if self.best is not None else None
        return self.best if record is None or record.can_win else None

    def epochs_of_best(self) -> int:
        """To which the winner's trial was trained; 0 if the study went back to a snapshot and forgot it."""
        record = self._study.records.get(self.best["trial"]) if self.best is not None else None
        return 0 if record is None else record.epoch

    def _params(self, number: int) -> dict[str, Any]:
        """Those drawn of the winner, as it was trained; all if the study went back to a snapshot and forgot it."""
        config: dict[str, Any] = checkpoint.read_json(self._folder.best / checkpoint.CONFIG)["config"]
        record = self._study.records.get(number)
        return config if record is None else {name: config[name] for name in record.params}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial runs, for the first time or again."""
        record = self._study.records[trial.config["number"]]
        record.state = "running"
        self._clock.first_trial_started = self._clock.first_trial_started or time.time()
        self._saved_at[record.number] = time.monotonic()
        self._board.begin(record)
        self._folder.trials.begins(trial.path)
        self._outdated = True

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """After the scheduler's decision: asks for a checkpoint if it can still matter."""
        record, report = self._study.records[trial.config["number"]], result["report"]
        self._board.add(record, report)
        lead = self._lead()
        if lead is not None and (self._led is None or lead > self._led):
            self._led = lead
            self._on_lead()
        if self._matters(record, report):
            result[SHOULD_CHECKPOINT] = True

    def _lead(self) -> tuple[bool, float] | None:
        """What the best trial has come to."""
        return next((record.standing for record in self._study.top(1)), None)

    def _matters(self, record: TrialRecord, report: Report) -> bool:
        if report.failure is not None:
            return False
        if record.ended:
            return record.number in self._kept()
        at_rung = report.epoch in record.values
        overdue = time.monotonic() - self._saved_at[record.number] > SAVE_SECONDS
        return at_rung or overdue or record.state == "paused"

    def _kept(self) -> set[int]:
        """Trials that keep a checkpoint once they have ended."""
        winner = {self.winner} if self.winner is not None else set()
        return winner | {record.number for record in (*self._study.top(KEPT_TRIALS), *self._study.finalists())}

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        """A checkpoint is on disk: exports it if nothing better is."""
        number, place = trial.config["number"], self._folder.trials.place_of(checkpoint)
        self._saved_at[number] = time.monotonic()
        self._dropped.discard(number)
        try:
            self._export_if_best(number, place)
        except (UserError, OSError) as error:  # Ray would swallow it
            self._view.note(f"trial {number}: {error}")
            self._behind = True
            return
        self._folder.trials.drop(self._study.records[number].prefix, keep=place)

    def catch_up(self) -> None:
        """Exports the best checkpoint that an earlier start of the sweep, or a store that refused, has left behind.

        Raises:
            UserError, OSError: the store still refuses.
        """
        for record in () if self._decided else self._study.top(KEPT_TRIALS):
            place = self._folder.trials.newest(record.prefix)
            if place is not None:
                self._export_if_best(record.number, place)
        self._behind = False

    def _export_if_best(self, number: int, place: str) -> None:
        if self._decided:
            return
        metrics, best = read_metrics(place), self._to_beat
        if best is not None and self._study.rank_key(metrics) <= self._study.rank_key(best):
            return
        self.export(number, place)
        self._outdated = True

    def export(self, number: int, place: str, seeds: list[dict[str, Any]] | None = None) -> None:
        """Makes a checkpoint of a trial the winner.

        Args:
            number: of the trial.
            place: of the checkpoint.
            seeds: what its configuration came to, seed by seed, if it was trained on several.
        """
        provenance = {"sweep": self._folder.name, "trial": number, "revision": revision(), "versions": versions()}
        with fetched(place) as path:
            checkpoint.export(path, self._folder.best, {**provenance, "seeds": seeds})
        self.best = self._read_best()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended or was put off."""
        record = self._study.records[trial.config["number"]]
        if record.failure is not None:
            self._view.note(f"trial {record.number} failed: {record.failure}")
            self._depose(record.number)
        self._after(record)

    def _depose(self, number: int) -> None:
        """A trial that has failed leads no more: the next best is exported, if it was, and patience counts anew."""
        lead = self._lead()
        if lead != self._led:
            self._led = lead
            self._on_lead()
        if self.best is None or self.best["trial"] != number or self._decided:
            return
        try:
            self.catch_up()
        except (UserError, OSError):
            self._behind = True

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray gave a trial up; the scheduler has put it back, if the trial is not to blame."""
        record = self._study.records[trial.config["number"]]
        where = f" on {record.node}" if record.node else ""
        if (told := self._told(record, trial)) is not None:
            self._view.note(f"trial {record.number}{where} {told}")
        if not record.can_win:
            self._depose(record.number)
        self._after(record)

    @staticmethod
    def _told(record: TrialRecord, trial: Any) -> str | None:
        """What has come of a trial that Ray gave up; None if nothing that a user should know."""
        if record.state in ("stopped", "completed"):  # it had come to its end, and was being saved
            crash = crash_of(trial)
            return f"has ended, but {crash.reason}" if crash.blamed == STORAGE else None
        outcome = "failed" if record.ended else "goes on from its newest checkpoint"
        return f"{outcome}: {record.failure or crash_of(trial).reason}"

    def _after(self, record: TrialRecord) -> None:
        self._clock.last_trial_ended = time.time()
        self._board.end(record)
        self._write_summary()
        self._outdated = True

    def update(self) -> None:
        """Writes what has changed, and drops the checkpoints of trials that ended, but for those that may matter."""
        self._tidy()
        top = self._study.top(1)
        if top:
            self._board.best_so_far(top[0].best["val_elbo"], self._study.tried)
        self.write()

    def _tidy(self) -> None:
        kept = self._kept()
        ended = {record.number for record in self._study.records.values() if record.ended}
        gone = ended - kept - self._study.settled - self._dropped  # those of earlier starts of the sweep too
        if gone:
            self._folder.trials.drop(*(self._study.records[number].prefix for number in gone))
        self._dropped |= gone

    def write(self, **further: Any) -> dict[str, Any]:
        """Rewrites `summary.json` and `trials.csv`.

        Args:
            further: keys of the summary that are known only at the end.

        Returns:
            The summary.
        """
        summary = self._write_summary(**further)
        self._snapshots.take(at_once=bool(further))
        self._folder.write_trials(self._study)
        self._outdated, self._written = False, time.monotonic()
        return summary

    def follow(self, finals: dict[str, int]) -> None:
        """Writes how far final runs are."""
        self._finals = finals
        self._write_summary()

    def _write_summary(self, **further: Any) -> dict[str, Any]:
        times = self._clock.times(self._slots(), self._study.train_seconds)
        known = {"baseline": self._baseline, "finals": self._finals, **times, **further}
        summary = summarise(self._study, known, self.best)
        checkpoint.write_json(self._folder.summary, summary)
        return summary

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Draws the view, writes and copies what has changed, and makes up for a store that refused."""
        if self._behind and time.monotonic() - self._retried_at > _AGAIN_SECONDS:
            self._retried_at = time.monotonic()
            with contextlib.suppress(UserError, OSError):
                self._folder.trials.require_reachable()  # at once, where the rest would wait
                self.catch_up()
        if self._outdated and time.monotonic() - self._written > _WRITE_SECONDS:
            self.update()
        self._snapshots.take()
        self._view.refresh()

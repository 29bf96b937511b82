"""Final runs: the best configurations on further seeds, over Ray Tune as the search was."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from sweep.callback import SAVE_SECONDS, SweepCallback
from sweep.crash import Standstill, crash_of, is_tired, most_crashes
from sweep.live import FinalsView
from sweep.record import Report
from sweep.results import SweepFolder
from sweep.rungs import rungs
from sweep.scheduler import Stoppable
from sweep.seeds import FinalRun, decide, plan, progress
from sweep.stop import Stop
from sweep.study import Study
from sweep.tuning import Resources, run_trials
from vae.corpus import Corpus


def train_finals(
    study: Study,
    folder: SweepFolder,
    corpus: Corpus,
    resources: Resources,
    stop: Stop,
    minders: Sequence[Callback] = (),
    winner: int | None = None,
    tell: Callable[[dict[str, int]], None] = lambda _: None,
) -> list[FinalRun]:
    """Trains the best configurations on all seeds; what earlier starts of the sweep have trained is not repeated.

    Args:
        study: of the sweep, whose search is over.
        folder: of the sweep.
        corpus: the data.
        resources: of the machines.
        stop: says when to end early.
        minders: further callbacks, who mind the machines.
        winner: as of `plan`.
        tell: told how far they are, as of `sweep.seeds.progress`.

    Returns:
        All runs; where `stop` came in between, some are neither trained nor failed.
    """
    runs = plan(study, folder, winner)
    left = {run.folder: run for run in runs if not run.trained}
    if runs:
        tell(progress(runs))
    if left:
        standstill = Standstill(stop.fail)
        searcher = _Finals(list(left.values()), stop, resources.most)
        with FinalsView(runs) as view:
            run_trials(
                corpus,
                replace(study.settings, max_epochs=runs[0].epochs),
                resources,
                folder.finals,
                lambda config: f"{config['folder']}.{config['attempt']}",  # see `FinalRun.prefix`
                search_alg=searcher,
                scheduler=Stoppable(stop.asked),
                stop=_End(stop, runs[0].epochs),
                callbacks=[
                    _FinalsCallback(left, folder, view, searcher.put_back, standstill, lambda: tell(progress(runs))),
                    standstill,
                    *minders,
                ],
                max_failures=0,  # as of the search
            )
    return runs


def adopt(runs: Sequence[FinalRun], callback: SweepCallback, min_kl: float) -> bool:
    """Makes the winner among final runs that of the sweep, if all have ended; whether it has, or the search's stays."""
    decided = decide(runs, min_kl)
    if decided is None:
        return False
    winner, seeds = decided
    assert winner.checkpoint is not None
    callback.export(winner.trial, winner.checkpoint, [_seed(run) for run in seeds])
    return True


def _seed(run: FinalRun) -> dict[str, Any]:
    """A seed of the winner, as the summary tells of it."""
    metrics = run.metrics()
    return {"seed": run.seed, **{name: metrics[name] for name in ("epoch", "val_elbo", "kl", "code_gain")}}


class _Finals(Searcher):  # type: ignore[misc]  # ray ships incomplete types
    """Hands out final runs, in their order."""

    def __init__(self, runs: Sequence[FinalRun], stop: Stop, most: Callable[[], int]) -> None:
        super().__init__()
        self._most = most
        self._runs, self._stop = list(runs), stop
        self._live: set[str] = set()
        self._turns = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The config of the next run; None while one that trains may come back, then FINISHED."""
        if self._stop.asked() or not (self._runs or self._live):
            return str(Searcher.FINISHED)
        if not self._runs or len(self._live) >= self._most():
            return None
        run = self._runs.pop(0)
        self._live.add(trial_id)
        self._turns += 1
        identity = {"folder": run.folder, "attempt": run.attempts, "turn": self._turns}
        run.attempts += 1
        start = {"checkpoint": run.checkpoint, "epoch": run.epoch}
        return {**identity, "params": run.params, "seed": run.seed, **start}

    def put_back(self, run: FinalRun) -> None:
        """A run was cut off by a crash; it goes on from its newest checkpoint, before others or after them."""
        self._runs.insert(len(self._runs) if is_tired(run) else 0, run)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The callback records how a run ends."""
        self._live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: checkpoints are all that a run resumes from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: `plan` looks for checkpoints."""


class _End(Stopper):  # type: ignore[misc]  # ray ships incomplete types
    """Ends a run at its last epoch, at a failure, and all when a person asks."""

    def __init__(self, stop: Stop, epochs: int) -> None:
        self._stop, self._epochs = stop, epochs

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a run ends with this report."""
        report: Report = result["report"]
        return report.failure is not None or report.epoch >= self._epochs or self._stop.asked()

    def stop_all(self) -> bool:
        """Whether to cut off what still runs."""
        return self._stop.stop_all()


class _FinalsCallback(Callback):  # type: ignore[misc]  # ray ships incomplete types
    """Keeps the runs and the view current, and has them saved."""

    def __init__(
        self,
        runs: Mapping[str, FinalRun],
        folder: SweepFolder,
        view: FinalsView,
        put_back: Callable[[FinalRun], None],
        standstill: Standstill,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_progress = on_progress
        self._runs, self._folder, self._view, self._put_back = runs, folder, view, put_back
        self._saved_at: dict[str, float] = {}
        self._standstill = standstill

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A run trains, for the first time or again."""
        self._saved_at[trial.config["folder"]] = time.monotonic()
        self._folder.finals.begins(trial.path)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Takes in a report, and asks for a checkpoint at rungs, at the end, and where the last is old."""
        run, report = self._runs[trial.config["folder"]], result["report"]
        run.reach(report.epoch)
        self._on_progress()
        if report.failure is not None:
            self._fail(run, report.failure)
            return
        overdue = time.monotonic() - self._saved_at[run.folder] > SAVE_SECONDS
        if overdue or result.get("done") or report.epoch in rungs(run.epochs):
            result[SHOULD_CHECKPOINT] = True

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        """A checkpoint is on disk; those before it go."""
        run, place = self._runs[trial.config["folder"]], self._folder.finals.place_of(checkpoint)
        run.saved(place, run.epoch)
        self._saved_at[run.folder] = time.monotonic()
        self._folder.finals.drop(run.prefix, keep=place)
        self._on_progress()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray gave a run up; it is put back, unless it is to blame, or what is was so too often."""
        run, crash = self._runs[trial.config["folder"]], crash_of(trial)
        count = run.crash(crash.blamed)
        training = (other for other in trials if other.status == Trial.RUNNING and other is not trial)
        self._standstill.check(crash, count, any(not self._runs[other.config["folder"]].crashes for other in training))
        if count > most_crashes(crash.blamed):
            self._fail(run, crash.reason)
            return
        self._view.note(f"final run of trial {run.trial} with seed {run.seed} goes on: {crash.reason}")
        self._put_back(run)

    def _fail(self, run: FinalRun, reason: str) -> None:
        run.failure = reason
        self._view.note(f"final run of trial {run.trial} with seed {run.seed} failed: {reason}")
        self._on_progress()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Draws the view."""
        self._view.refresh()

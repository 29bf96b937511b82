"""Ray Tune's workers: it outlives one that is killed for memory, or lost with its node, and lets late ones come up.

It ends one that hangs, and keeps the error by which a trial ended as it came, see `error_of`.
"""

import time
from typing import Any

import ray
from ray.air.execution._internal import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune import progress_reporter, tune
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial

_SILENT_SECONDS, _SILENT_REPORTS = 1800.0, 20.0
"""A worker that gives no answer for so long, and for as long as so many of the slowest reports took, hangs."""

_LATE_SECONDS = 60.0
"""Between two looks, of a driver that was stopped, or held up."""


class WorkerLostError(RayActorError):  # type: ignore[misc]  # ray ships incomplete types
    """A worker is gone, by an error that Ray Tune does not know."""

    def __init__(self, cause: RayError) -> None:
        super().__init__(error_msg=str(cause))
        self.cause = cause


class SilentError(Exception):
    """A worker gave no answer, and was ended."""


class ActorManager(RayActorManager):  # type: ignore[misc]  # ray ships incomplete types
    """Tells of any lost worker as of a dead actor.

    Ray 2.60's own knows errors of actors and of tasks. Of others, such as OutOfMemoryError and NodeDiedError, it makes
    a RuntimeError in the driver, which ends the whole search.
    """

    def kill(self, tracked_actor: Any) -> None:
        """Ends a worker's process; its trial is told of that as of any crash."""
        actor, _ = self._live_actors_to_ray_actors_resources[tracked_actor]
        ray.kill(actor)

    def _actor_start_failed(self, tracked_actor: Any, exception: Exception) -> None:
        super()._actor_start_failed(tracked_actor, known(exception))

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        super()._actor_task_failed(tracked_actor_task, known(exception))


def known(exception: Exception) -> Exception:
    """The error, or one that Ray Tune knows and that holds it."""
    unknown = isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError)
    return WorkerLostError(exception) if unknown else exception


class Controller(tune_controller.TuneController):  # type: ignore[misc]  # ray ships incomplete types
    """Lets a worker that is being set up come up, ends those that hang, and keeps the errors of trials.

    Ray 2.60's own gives its trial to any other worker that is free before, and ends it. Where trials end more often
    than it takes to set up a worker, a machine that joins late would never have one. And it waits for ever.
    """

    _slowest = 0.0  # seconds that a report has taken
    _looked: float | None = None

    def _maybe_reuse_cached_actor(self, trial: Trial) -> bool:
        worker = self._trial_to_actor.get(trial)
        coming = self._actor_manager.is_actor_started(worker) and worker not in self._started_actors
        return not coming and bool(super()._maybe_reuse_cached_actor(trial))

    def _schedule_trial_task(self, trial: Trial, *args: Any, **more: Any) -> Any:
        trial.temporary_state.asked = time.monotonic()
        return super()._schedule_trial_task(trial, *args, **more)

    def _on_training_result(self, trial: Trial, result: Any) -> None:
        self._slowest = max(self._slowest, time.monotonic() - trial.temporary_state.asked)
        super()._on_training_result(trial, result)

    def on_step_end(self) -> None:
        """Ends workers that hang: in training once it is known how long reports take, or while they are set up."""
        super().on_step_end()
        now, patience = time.monotonic(), max(_SILENT_SECONDS, _SILENT_REPORTS * self._slowest)
        since = now - (self._looked or now)
        if self._looked is not None and since < 1.0:
            return
        self._looked = now
        for trial, worker in list(self._trial_to_actor.items()):
            if not self._actor_manager.is_actor_started(worker):  # it waits for room
                continue
            state = trial.temporary_state
            # The driver itself may have been stopped meanwhile, and answers may wait.
            state.asked = getattr(state, "asked", now) + (since if since > _LATE_SECONDS else 0.0)
            known = self._slowest or trial.status == Trial.PENDING
            if known and now - state.asked > patience:
                state.asked = now
                state.silent = SilentError(f"its worker gave no answer for {patience / 60:.0f} minutes")
                self._actor_manager.kill(worker)

    def _process_trial_failure(self, trial: Trial, exception: Exception) -> None:
        keep_error(trial, getattr(trial.temporary_state, "silent", exception))
        super()._process_trial_failure(trial, exception)


def keep_error(trial: Trial, error: Exception) -> None:
    """Keeps the error that Ray gives a trial up for; Ray's own keeps it as a pickle on disk, which none shall read."""
    trial.temporary_state.error = error  # of this process alone


def error_of(trial: Trial) -> Exception:
    """The error that Ray has just given a trial up for."""
    error: Exception = trial.temporary_state.error
    return error


def _say_nothing(*_: Any) -> None:
    """In the place of printing."""


def mind_workers() -> None:
    """Has Ray Tune use `ActorManager` and `Controller`, for which it has no arguments, and leave the screen alone.

    Whatever the verbosity, Ray 2.60 prints that trials have completed which were given back before they ran.
    """
    progress_reporter.TrialProgressCallback._print = _say_nothing
    tune_controller.RayActorManager = ActorManager
    tune.TuneController = Controller

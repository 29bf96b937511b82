"""Ray Tune's manager of workers, so that it outlives one that is killed for memory, or lost with its node."""

from typing import Any

from ray.air.execution._internal import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution import tune_controller


class WorkerLostError(RayActorError):  # type: ignore[misc]  # ray ships incomplete types
    """A worker is gone, by an error that Ray Tune does not know."""

    def __init__(self, cause: RayError) -> None:
        super().__init__(error_msg=str(cause))
        self.cause = cause


class ActorManager(RayActorManager):  # type: ignore[misc]  # ray ships incomplete types
    """Tells of any lost worker as of a dead actor.

    Ray 2.60's own knows errors of actors and of tasks. Of others, such as OutOfMemoryError and NodeDiedError, it makes
    a RuntimeError in the driver, which ends the whole search.
    """

    def _actor_start_failed(self, tracked_actor: Any, exception: Exception) -> None:
        super()._actor_start_failed(tracked_actor, known(exception))

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        super()._actor_task_failed(tracked_actor_task, known(exception))


def known(exception: Exception) -> Exception:
    """The error, or one that Ray Tune knows and that holds it."""
    unknown = isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError)
    return WorkerLostError(exception) if unknown else exception


def outlive_lost_workers() -> None:
    """Has Ray Tune use `ActorManager`, for which it has no argument."""
    tune_controller.RayActorManager = ActorManager

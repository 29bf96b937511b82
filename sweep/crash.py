"""Why Ray gave a trial up, and what is to blame: it, its worker, its node, its checkpoint, or where those are kept."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.exceptions import (
    ActorUnavailableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
)
from ray.tune import Callback
from ray.tune.experiment import Trial

from sweep.record import Trained
from sweep.workers import WorkerLostError, error_of
from vae.errors import OtherRunError
from vae.store import StoreError, reason

TRIAL, WORKER, NODE, PREEMPTION = "trial", "worker", "node", "preemption"
STORAGE, SETUP, OUTDATED = "storage", "setup", "outdated"
MOST_CRASHES = {TRIAL: 0, WORKER: 2, NODE: 3, PREEMPTION: 30, STORAGE: 30, SETUP: 2, OUTDATED: sys.maxsize}
"""That a trial survives without a new epoch in between. Its own errors would come again, so of these none. A worker
that was killed may have taken too much memory; it will again, if so. A node that went away, shared with other trials,
says nothing of this one unless that goes on. At the first checkpoint of another version of the code the sweep stops.
See `PLACES` for the rest."""
PLACES = (PREEMPTION, STORAGE, SETUP)
"""What is to blame for a crash that says nothing of a trial: a market that took a node back, a store that refused, a
node that could not be made ready for any trial, which was tried for a minute. A trial that crashes by these more often
is tried again when nothing else is left to be, so many times as often."""
_AGAIN = 10
NODES_KILLED = 2
"""Died under a trial, in a row, which is to blame if no other can be. Else those that can are tried one at a time."""
BLAMELESS = (NODE, *PLACES)
"""Of which a trial that ends says nothing of its params."""
STANDSTILL_SECONDS = 300.0
"""In which nothing was saved and no trial ended, while none trained but those that crash."""

_LOST = (ActorUnavailableError, NodeDiedError, LocalRayletDiedError, ObjectLostError)
_NODE_DIED = "because its node has died"  # Ray tells it from the worker's death in the message alone


class SetupError(Exception):
    """A node can't be made ready for trials, whichever they are."""


GPU_ERRORS = ("CUDA error", "cuDNN error", "CUDNN_", "CUBLAS_")
"""Of PyTorch, after which a process is of no use: the GPU's, another's that shares it by MPS, or indeed the trial's."""
_IN_SETUP = {  # the error itself is text by then
    SetupError.__name__: SETUP,
    StoreError.__name__: STORAGE,
    OtherRunError.__name__: OUTDATED,
    **dict.fromkeys(GPU_ERRORS, WORKER),
}
_NOT_SHARED = "Unable to set up cluster storage"  # Ray's, on a node that does not see where results are


@dataclass(frozen=True)
class Crash:
    """What is to blame, and a line that says why."""

    blamed: str
    reason: str


def crash_of(trial: Trial) -> Crash:
    """Of a trial that Ray has just given up."""
    return classify(error_of(trial))


def classify(error: Exception) -> Crash:
    """What is to blame for an error."""
    error = error.cause if isinstance(error, WorkerLostError) else error
    if isinstance(error, RayTaskError) and isinstance(error.cause, (*_LOST, RayActorError)):
        error = error.cause  # not the trainer's: it met a loss elsewhere
    if isinstance(error, RayTaskError):
        return _of_task(error.cause)
    if isinstance(error, OutOfMemoryError):
        return Crash(TRIAL, "its worker was killed because the node was running low on memory")
    if isinstance(error, RayActorError) and error.preempted:
        return Crash(PREEMPTION, "its node was taken back")
    if isinstance(error, _LOST) or (isinstance(error, RayActorError) and _NODE_DIED in str(error)):
        return Crash(NODE, "its node died or could not be reached")
    if isinstance(error, RayActorError) and error.actor_init_failed:
        return _of_setup(str(error))
    return Crash(WORKER, "its worker died" if isinstance(error, RayActorError) else _line(str(error), 0))


def _of_setup(text: str) -> Crash:
    """What is to blame for an error, by then a traceback, in the process that was to train a trial.

    Of the trial's own none is left: one that can't be built has failed without an error, see `sweep.trial`.
    """
    lines = text.splitlines()
    for word, blamed in _IN_SETUP.items():
        if told := [line for line in lines if word in line]:
            return Crash(blamed, f"its worker could not be set up: {_line(told[-1], 0)}")
    return Crash(SETUP, f"its worker could not be set up: {_line(text, -1)}")


def _of_task(cause: Exception) -> Crash:
    """What is to blame for an error in a trial's own process."""
    if isinstance(cause, StoreError):
        return Crash(STORAGE, f"its checkpoint could not be read: {cause}")
    if isinstance(cause, OtherRunError):
        return Crash(OUTDATED, f"its checkpoint can't be gone on from: {cause}")
    if isinstance(cause, OSError) or _NOT_SHARED in str(cause):
        return Crash(STORAGE, f"its checkpoint could not be kept: {reason(cause)}")
    if str(cause).startswith(GPU_ERRORS):
        return Crash(WORKER, _line(str(cause), 0))
    return Crash(TRIAL, f"{type(cause).__name__}: {_line(str(cause), 0)}")


def _line(text: str, index: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[index] if lines else "no reason given"


def most_crashes(blamed: str) -> int:
    """That a trial survives, of a kind, without a new epoch in between."""
    return MOST_CRASHES[blamed] * (_AGAIN if blamed in PLACES else 1)


def is_tired(trial: Trained) -> bool:
    """Whether a trial has crashed so often by what says nothing of it that others come first."""
    return any(trial.crashes.get(blamed, 0) > MOST_CRASHES[blamed] for blamed in PLACES)


class Standstill(Callback):  # type: ignore[misc]  # ray ships incomplete types
    """Notices that no trial can be trained, wherever it comes to.

    Args:
        tell: told so, with the reason and the way out.
    """

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        self._tell, self._moved = tell, time.monotonic()

    def on_checkpoint(self, *args: Any, **info: Any) -> None:
        """A trial was saved."""
        del args, info
        self._moved = time.monotonic()

    def on_trial_complete(self, *args: Any, **info: Any) -> None:
        """A trial ended, or was put off."""
        del args, info
        self._moved = time.monotonic()

    def check(self, crash: Crash, count: int, others_train: bool) -> None:
        """Of a trial that has crashed: whether it did once too often, and no other fares better.

        Args:
            crash: the last.
            count: of such crashes, without a new epoch in between.
            others_train: whether any other trial does now that has not crashed.
        """
        if crash.blamed == OUTDATED:  # and so would be all others
            self._tell(crash.reason, "check out the version that it was begun with")
        idle = time.monotonic() - self._moved > STANDSTILL_SECONDS
        if crash.blamed in PLACES and count > MOST_CRASHES[crash.blamed] and idle and not others_train:
            self._tell(f"no trial can be trained: {crash.reason}", "mend that")

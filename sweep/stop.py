"""When a search ends before all of its trials have."""

import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from ray.tune.stopper import Stopper

from sweep.callback import Clock

GRACE_SECONDS = 60.0
"""How long a running epoch may take to end once the sweep is asked to stop."""


class Stop(Stopper):  # type: ignore[misc]  # ray ships incomplete types
    """Ends the search early: on Ctrl-C, SIGTERM, when the time budget is spent, or when nothing better comes.

    Trials are first asked to stop at their next report, which saves them; what lasts longer is cut off, unless it was
    patience that ended: then nothing is in a hurry.

    Args:
        budget: seconds from the first trial's start to the end of the search, or None.
        patience: share of the budget, of time or of trials, that may bring nothing better; None: all of it.
        clock: knows when the first trial started.
        share_ended: of the trials.
        expected: whether something better is, for the best trial trains on; that is waited for.
        room: bytes that results may still take; None: no matter.
    """

    def __init__(
        self,
        budget: float | None,
        patience: float | None,
        clock: Clock,
        share_ended: Callable[[], float],
        expected: Callable[[], bool] = lambda: False,
        room: Callable[[], int] | None = None,
    ) -> None:
        self._budget, self._patience, self._clock, self._share_ended = budget, patience, clock, share_ended
        self._expected = expected
        self._bettered_at: float | None = None  # share of the budget
        self._asked_at: float | None = None
        self._now = self._caught = self._impatient = False
        self.failure: str | None = None  # what keeps the sweep from going on
        self._room = room

    def fail(self, reason: str, way: str) -> None:
        """Asks as a person would, because of what a person must mend.

        Args:
            reason: what keeps the sweep from going on.
            way: out.
        """
        if self.failure is None:
            sys.stderr.write(f"\nstopping: {reason}\n")
            self.failure = f"{reason}, so the sweep has stopped; {way}"
        self._asked_at = self._asked_at or time.time()

    def listen(self) -> None:
        """Takes over Ctrl-C and SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.catch)

    def catch(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal: the first asks, the second insists, and a third ends the command, whatever it waits for."""
        del frame
        if self._caught:
            signal.signal(number, signal.default_int_handler)
        self._now = self._caught
        self._caught = True
        self._asked_at = self._asked_at or time.time()
        sys.stderr.write("\nstopping; every trial is kept (again to stop at once)\n")

    @property
    def interrupted(self) -> bool:
        """Whether a person or a failure, not the budget, asked."""
        return self._asked_at is not None

    def left(self) -> float | None:
        """Seconds of the budget, None without one."""
        if self._budget is None:
            return None
        began = self._clock.first_trial_started
        return max(0.0, self._budget - (time.time() - began if began else 0.0))

    def spent(self) -> float:
        """Share of the budget, of time or of trials, whichever is more."""
        left = self.left()
        time_spent = 0.0 if left is None or self._budget is None else 1.0 - left / self._budget
        return max(time_spent, self._share_ended())

    def bettered(self) -> None:
        """Takes note of a new best, from which on patience counts."""
        self._bettered_at = self.spent()

    @property
    def impatient(self) -> bool:
        """Whether nothing better has come for too long, nor is expected."""
        if self._patience is not None and self._bettered_at is not None:
            # For good: what saves itself when it is asked to stop may be better after all.
            waited = self.spent() - self._bettered_at >= self._patience
            self._impatient |= waited and not self._expected()
        return self._impatient

    def asked(self) -> bool:
        """Whether trials should stop at their next report."""
        if self._room is not None and self.failure is None and self._room() <= 0:
            self.fail("the disk is nearly full", "make room")
        return self.interrupted or self.left() == 0.0 or self.impatient

    def stop_all(self) -> bool:
        """Whether to cut off what still runs."""
        if self._now:
            return True
        began, budget = self._clock.first_trial_started, self._budget
        ends = [self._asked_at] if self._asked_at else []
        ends += [began + budget] if began and budget else []
        return any(time.time() > end + GRACE_SECONDS for end in ends)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Single trials are the scheduler's business."""
        del trial_id, result
        return False

"""What is known of one trial, and what it tells the driver."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ENDED = ("stopped", "completed", "failed")
STATES = ("pending", "running", "paused", *ENDED)
_KEPT = (
    "epoch",
    "last",
    "best",
    "train_seconds",
    "node",
    "failure",
    "params",
    "goal",
    "turn",
    "crashes",
    "crashed_at",
    "lost",
    "judged",
    "stops",
    "reported_at",
)


@dataclass(frozen=True)
class Report:
    """What a trial tells the driver: epochs since the last report, and where it stands."""

    epoch: int
    curve: list[dict[str, float]]  # metrics of each epoch, of some on validation too
    best: dict[str, float]  # metrics of the trial's best epoch so far
    train_seconds: float  # of the trial, in all
    node: str
    failure: str | None = None  # why the trial could not go on


@dataclass(kw_only=True)
class Trained:
    """What is trained epoch by epoch, crashes, and goes on from its newest checkpoint."""

    epoch: int = 0  # trained so far
    crashes: dict[str, int] = field(default_factory=dict)  # since its last new epoch, by what was to blame
    crashed_at: int = 0  # the furthest epoch that it had come to when it crashed

    def crash(self, blamed: str) -> int:
        """Takes note of a crash; how many there are by now."""
        self.crashes[blamed] = self.crashes.get(blamed, 0) + 1
        self.crashed_at = max(self.crashed_at, self.epoch)
        return self.crashes[blamed]

    def reach(self, epoch: int) -> None:
        """Takes note of an epoch; a new one, not one that is trained again, clears the crashes."""
        self.epoch = epoch
        if epoch > self.crashed_at:
            self.crashes = {}


def _prefix(number: int) -> str:
    return f"{number:05d}-"


def folder_of(config: Mapping[str, Any]) -> str:
    """The name of the folder in which Ray Tune runs a trial for a turn, by its config; begins with the prefix."""
    return f"{_prefix(config['number'])}{config['turn']:05d}"


@dataclass
class TrialRecord(Trained):
    """One trial as the driver knows it."""

    number: int
    params: dict[str, Any]
    state: str = "pending"
    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    train_seconds: float = 0.0
    node: str = ""
    failure: str | None = None
    values: dict[int, float] = field(default_factory=dict)  # rank value at each rung
    goal: int = 0  # the rung at which it competes next; beyond the top if at none
    turn: int = 0  # when it was handed out last, counted
    reported_at: float | None = None  # its last report, in seconds since 1970
    standing: tuple[bool, float] | None = None  # rank key of its best epoch
    lost: bool = False  # failed by nothing that its params are to blame for
    judged: int = 0  # the last rung where it was told whether it stops
    stops: bool = False  # was not among the best there, under the scheduler that stops

    @property
    def family(self) -> str:
        """Of models."""
        return str(self.params["family"])

    @property
    def prefix(self) -> str:
        """Of the names of the folders in which Ray Tune runs it, one for each turn."""
        return _prefix(self.number)

    @property
    def ended(self) -> bool:
        """Whether nothing more will be trained."""
        return self.state in ENDED

    @property
    def waits(self) -> bool:
        """Whether it has been to a rung, and goes on only if it comes to be among the best there."""
        return self.state == "paused" and self.epoch >= self.goal

    @property
    def can_win(self) -> bool:
        """Whether its best epoch counts: it has not failed by what its params are to blame for."""
        return self.state != "failed" or self.lost

    def kept(self) -> dict[str, Any]:
        """What the journal keeps beside params and rung values."""
        return {name: getattr(self, name) for name in _KEPT}


def known(kept: dict[str, Any]) -> dict[str, Any]:
    """What this version takes of `TrialRecord.kept`: a later one, which went on with the sweep, may have kept more."""
    return {name: kept[name] for name in _KEPT if name in kept}

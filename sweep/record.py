"""What is known of one trial, and what it tells the driver."""

from dataclasses import dataclass, field
from typing import Any

ENDED = ("stopped", "completed", "failed")
STATES = ("pending", "running", "paused", *ENDED)


@dataclass(frozen=True)
class Report:
    """What a trial tells the driver: epochs since the last report, and where it stands."""

    epoch: int
    curve: list[dict[str, float]]  # metrics of each epoch, of some on validation too
    best: dict[str, float]  # metrics of the trial's best epoch so far
    train_seconds: float  # of the trial, in all
    node: str
    failure: str | None = None  # why the trial could not go on


@dataclass
class TrialRecord:
    """One trial as the driver knows it."""

    number: int
    params: dict[str, Any]
    state: str = "pending"
    epoch: int = 0
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
    crashes: dict[str, int] = field(default_factory=dict)  # since its last new epoch, by what was to blame
    lost: bool = False  # failed by nothing that its params are to blame for

    @property
    def prefix(self) -> str:
        """Of the names of the folders in which Ray Tune runs it, one for each turn."""
        return f"{self.number:05d}-"

    @property
    def ended(self) -> bool:
        """Whether nothing more will be trained."""
        return self.state in ENDED

    @property
    def waits(self) -> bool:
        """Whether it has been to a rung, and goes on only if it comes to be among the best there."""
        return self.state == "paused" and self.epoch >= self.goal

    def kept(self) -> dict[str, Any]:
        """What the journal keeps beside params and rung values."""
        names = (
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
            "lost",
            "reported_at",
        )
        return {name: getattr(self, name) for name in names}

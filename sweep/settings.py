"""What a sweep was asked for."""

from dataclasses import dataclass

from sweep import space
from sweep.rungs import PROMOTION
from vae.encoding import DataSpec

FINALISTS = 3
"""Configurations that are trained on further seeds once the search is over."""
FINAL_SEEDS = 3


@dataclass(frozen=True)
class Settings:
    """Of a sweep; one that is resumed takes them from the journal."""

    name: str
    data: str
    spec: DataSpec
    fingerprint: str
    families: tuple[str, ...]
    max_epochs: int
    epoch_steps: int
    seed: int
    min_kl: float
    scheduler: str = PROMOTION
    final_seeds: int = FINAL_SEEDS  # of each finalist, the search's own included; 1: none are trained
    final_epochs: int | None = None  # of a final run; None: max_epochs
    warm_start: tuple[str, ...] = ()  # names of earlier sweeps

    @property
    def last_epoch(self) -> int:
        """To which the best are trained."""
        return self.final_epochs or self.max_epochs

    @property
    def task(self) -> space.Task:
        """What the space depends on."""
        return space.Task(self.families, self.spec, self.min_kl, self.max_epochs * self.epoch_steps)

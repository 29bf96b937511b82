"""What the peers measure of themselves. Imported in their trials, so it imports nothing that those lack."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vae.trainer import Trainer


@dataclass
class Tally:
    """What a peer measures of itself; durations in seconds, moments in seconds since the epoch."""

    first_start: float | None = None
    last_end: float | None = None
    trials: int = 0
    failed: int = 0
    epochs: int = 0
    train_seconds: float = 0.0  # inside the optimizer's loop
    validation_seconds: float = 0.0  # the rest of `Trainer.train_epoch`

    def begin(self) -> None:
        """A trial starts."""
        self.first_start = self.first_start or time.time()

    def add(self, metrics: dict[str, Any]) -> None:
        """An epoch was reported."""
        self.epochs += 1
        self.train_seconds += metrics["train_seconds"]
        self.validation_seconds += metrics["epoch_seconds"] - metrics["train_seconds"]

    def end(self, failed: bool = False) -> None:
        """A trial ends."""
        self.trials += 1
        self.failed += failed
        self.last_end = time.time()

    def write(self, path: Path) -> None:
        """Hands the figures to the benchmark."""
        path.write_text(json.dumps(asdict(self)))


def timed_epoch(trainer: Trainer) -> dict[str, float]:
    """One epoch's metrics, and `epoch_seconds`: training and validation together."""
    began = time.perf_counter()
    metrics = trainer.train_epoch()
    return metrics | {"epoch_seconds": time.perf_counter() - began}

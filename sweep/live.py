"""The live view of a sweep: a panel on a terminal, plain lines elsewhere."""

import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sweep.record import STATES, TrialRecord
from sweep.seeds import FinalRun, progress
from sweep.study import Study

_REFRESH_SECONDS = 0.5
_LINE_SECONDS = 5.0


def duration(seconds: float | None) -> str:
    """Seconds as a person would say them: 42 s, 3 min 05 s, 2 h 10 min."""
    if seconds is None:
        return "unknown"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def say(*lines: str) -> None:
    """Prints lines at once, though nobody may be at a terminal."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


class View(ABC):
    """Something that is drawn again and again: one panel on a terminal, else a line every few seconds."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._drawn = 0.0
        self._live = Live(console=Console(), auto_refresh=False) if sys.stdout.isatty() else None

    def __enter__(self) -> Self:
        """Takes over the terminal, if there is one."""
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the last state standing."""
        self.refresh(force=True)
        if self._live:
            self._live.stop()

    def refresh(self, force: bool = False) -> None:
        """Draws again, if it is time to."""
        now = time.monotonic()
        if not force and now - self._drawn < (_REFRESH_SECONDS if self._live else _LINE_SECONDS):
            return
        self._drawn = now
        if self._live:
            self._live.update(self._panel(), refresh=True)
        else:
            say(self._line())

    def note(self, line: str) -> None:
        """Says something that stays, above the view."""
        if self._live:
            self._live.console.print(line, markup=False, emoji=False, highlight=False)
        else:
            say(line)

    @abstractmethod
    def _line(self) -> str: ...

    @abstractmethod
    def _panel(self) -> Panel: ...


class LiveView(View):
    """Shows the best so far, rungs, trials by state, epochs and the time left.

    Args:
        study: what is shown.
        rungs: epochs at which trials compete.
        slots: trials at a time.
        deadline_in: seconds until the time budget ends, or None.
    """

    def __init__(
        self, study: Study, rungs: tuple[int, ...], slots: int, deadline_in: Callable[[], float | None]
    ) -> None:
        super().__init__()
        self._study, self._rungs, self._slots, self._deadline_in = study, rungs, slots, deadline_in
        self._tried_before = self._study.tried

    def time_left(self) -> float | None:
        """Seconds, by the pace of the trials so far and the time budget; None when unknown."""
        deadline, tried = self._deadline_in(), self._study.tried - self._tried_before
        if self._study.most is None or tried < self._slots:
            return deadline
        pace = (time.monotonic() - self._started) / tried
        by_trials = pace * (self._study.requested - self._study.tried)
        return by_trials if deadline is None else min(deadline, by_trials)

    def _line(self) -> str:
        return f"{self._progress()}; best {self._best()}"

    def _progress(self) -> str:
        of_all = "" if self._study.most is None else f"/{self._study.requested}"
        return (
            f"{duration(time.monotonic() - self._started)}: {self._study.tried}{of_all} trials tried, "
            f"{self._epochs()}, {duration(self.time_left())} left"
        )

    def _epochs(self) -> str:
        """Those trained, and the share that trials were spared by not being trained to the top.

        Left out are those that run, which may go on to the top, and those that failed, which could not have.
        """
        records = self._study.records.values()
        epochs = f"{sum(record.epoch for record in records)} epochs"
        tried = [record.epoch for record in records if record.waits or record.state in ("stopped", "completed")]
        if not tried:
            return epochs
        return f"{epochs}, {1 - sum(tried) / (len(tried) * self._rungs[-1]):.0%} spared"

    def _best(self) -> str:
        top = self._study.top(1)
        if not top:
            return "none yet"
        best = top[0].best
        feasible, _ = self._study.rank_key(best)
        return (
            f"trial {top[0].number} ({top[0].params['family']}) val_elbo {best['val_elbo']:.3f} kl {best['kl']:.3f} "
            f"code_gain {best['code_gain']:.3f} at epoch {best['epoch']:.0f}"
            f"{'' if feasible else ' (infeasible: its code says too little)'}"
        )

    def _panel(self) -> Panel:
        counts = self._study.counts()
        states = "  ".join(f"{state} {counts[state]}" for state in STATES if counts[state])
        reached = Counter(epoch for record in self._study.records.values() for epoch in record.values)
        rungs = "  ".join(f"epoch {epoch}: {reached[epoch]}" for epoch in self._rungs)
        parts = [Text(self._progress()), Text(f"trials  {states}"), Text(f"rungs   {rungs}")]
        parts.append(Text(f"best    {self._best()}", style="bold green"))
        running = [record for record in self._study.records.values() if record.state == "running"]
        return Panel(Group(*parts, _table(running)), title=f"sweep {self._study.settings.name}", expand=False)


def _table(records: list[TrialRecord]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("trial", "family", "epoch", "val_elbo", "kl", "node"):
        table.add_column(name)
    for record in records[:16]:
        values = [f"{record.last[key]:.3f}" if record.last else "" for key in ("val_elbo", "kl")]
        row = (str(record.number), record.family, str(record.epoch), *values, record.node)
        table.add_row(*row)
    return table


def finals_told(finals: dict[str, int]) -> str:
    """How far final runs are, in words."""
    return "final runs: {trained}/{runs} trained, epoch {epoch}/{epochs}".format(**finals)


class FinalsView(View):
    """Shows how far the final runs are, and the time left.

    Args:
        runs: all of them, those included that were trained before.
    """

    def __init__(self, runs: Sequence[FinalRun]) -> None:
        super().__init__()
        self._runs = runs
        self._epochs_before = self._known = self._epochs()
        self._known_at = self._started

    def _epochs(self) -> int:
        return sum(run.epoch for run in self._runs)

    def time_left(self) -> float | None:
        """Seconds, by the pace of the epochs trained so far, counted down until the next; None before the first."""
        now, known = time.monotonic(), self._epochs()
        if known != self._known:
            self._known, self._known_at = known, now
        if known <= self._epochs_before:
            return None
        pace = (self._known_at - self._started) / (known - self._epochs_before)
        left = sum(run.epochs - run.epoch for run in self._runs if run.failure is None)
        return max(0.0, left * pace - (now - self._known_at))

    def _line(self) -> str:
        return f"{finals_told(progress(self._runs))}, {duration(self.time_left())} left"

    def _panel(self) -> Panel:
        return Panel(Text(self._line()), title="final runs", expand=False)

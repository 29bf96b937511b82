"""What the driver of a sweep costs a reported result, from the first hundred trials to the ten thousandth.

    python -m benchmarks.driver_time

A real sweep of trials that take next to nothing, see `benchmarks.tiny_sweep`: epochs of a few hundred steps.
Measured from outside, in a window of trials around each count: processor seconds of the driver's process, threads
included, over the reports at rungs that the journal got meanwhile; and its resident memory. `ratio` is the last window
over that at 200 trials.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import ROOT, Table, environment, made_songs, write
from sweep.results import SweepFolder

NAME = "driver_time"
_BASE = 200
_HALF_WINDOW = 0.25  # of a count of trials, on either side
_SECONDS = 1.0  # between samples
_MIB = 2**20


@dataclass(frozen=True)
class Sample:
    """The driver at a moment."""

    trials: int  # begun so far
    reports: int  # at rungs
    cpu_seconds: float
    rss_mib: float


class Journal:
    """Counts what a study's journal has got, as it grows."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0
        self.trials = self.reports = 0

    def look(self) -> None:
        """Takes in what is new."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text.rfind(b"\n") + 1
        self._read += whole
        self.trials += text[:whole].count(b'"datetime_start"')
        self.reports += text[:whole].count(b'"intermediate_value"')


def watch(process: subprocess.Popen[bytes], journal: Path) -> Iterator[Sample]:
    """Samples a sweep while it runs."""
    driver, counts = psutil.Process(process.pid), Journal(journal)
    while process.poll() is None:
        time.sleep(_SECONDS)
        counts.look()
        try:
            times, memory = driver.cpu_times(), driver.memory_info()
        except psutil.Error:
            return  # it has just ended
        yield Sample(counts.trials, counts.reports, times.user + times.system, memory.rss / _MIB)


def around(samples: list[Sample], trials: int) -> dict[str, float]:
    """Milliseconds of the driver a report, and its memory, in the window around a count of trials."""
    low, high = (1 - _HALF_WINDOW) * trials, (1 + _HALF_WINDOW) * trials
    window = [sample for sample in samples if low <= sample.trials <= high]
    first, last = window[0], window[-1]
    spent = (last.cpu_seconds - first.cpu_seconds) / (last.reports - first.reports)
    return {"ms_a_report": 1000.0 * spent, "rss_mib": max(sample.rss_mib for sample in window)}


def measure(trials: int, folder: Path) -> list[Sample]:
    """Runs a sweep of so many trials; samples of its driver."""
    data, name = made_songs(folder / "chords.json", 60, 10), "driver"
    words = [
        "--data",
        str(data),
        "--results",
        str(folder),
        "--name",
        name,
        "--trials",
        str(trials),
        "--final-seeds",
        "1",
    ]
    words += ["--family", "dense", "--max-epochs", "3", "--epoch-steps", "300"]
    process = subprocess.Popen(
        (sys.executable, "-m", "benchmarks.tiny_sweep", *words), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL
    )
    samples = []
    try:
        for sample in watch(process, SweepFolder(folder, name).journal):
            samples.append(sample)
            if len(samples) % 30 == 0:
                print(
                    f"{sample.trials} trials, {sample.reports} reports, driver {sample.cpu_seconds:.0f} s", flush=True
                )
            if sample.trials >= trials:
                break
    finally:
        for _ in range(2):  # the second at once
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                time.sleep(3.0)
        process.wait()
    return samples


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.{NAME}", description="What the driver costs a report.")
    parser.add_argument("--trials", type=int, default=10_000, metavar="N", help="of the sweep (default: 10000)")
    parser.add_argument("--out", type=Path, help=f"default: benchmarks/results/{NAME}.json")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        samples = measure(args.trials, Path(folder))
    last = round(args.trials / (1 + _HALF_WINDOW))
    counts = [count for count in (_BASE, 500, 1000, 2000, 5000) if count < last] + [last]
    rows: dict[int, dict[str, Any]] = {count: around(samples, count) for count in counts}
    lines = [(f"{count}", f"{row['ms_a_report']:.0f}", f"{row['rss_mib']:.0f}") for count, row in rows.items()]
    figures = {
        "ratio": rows[last]["ms_a_report"] / rows[counts[0]]["ms_a_report"],
        "rss_mib": rows[last]["rss_mib"],
        "windows": rows,
    }
    write(NAME, figures, Table(("trials so far", "driver, ms a report", "driver, MiB"), lines), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

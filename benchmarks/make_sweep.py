"""`make sweep` as a newcomer meets it: a fresh clone, an empty cache, one command; what it takes and what it finds.

    python -m benchmarks.make_sweep

The clone is of the last commit. Figures: seconds in all, the winner beside the baseline, the median trial at the first
rung (under the baseline the rungs would carry no signal), and statistics of 64 samples beside the data's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.common import ROOT, Table, write

NAME = "make_sweep"


def run_in_a_fresh_clone(folder: Path) -> tuple[Path, float]:
    """Clones and runs; gives the sweep's folder and the seconds of `make sweep`."""
    clone = folder / "clone"
    subprocess.run(("git", "clone", "--quiet", ROOT, clone), check=True)
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    for name in ("PYTHONDONTWRITEBYTECODE", "SWEEP_RESULTS"):
        environment.pop(name, None)
    began = time.monotonic()
    subprocess.run(("make", "sweep", f"PYTHON={sys._base_executable}"), cwd=clone, env=environment, check=True)
    return (clone / "results" / "latest").resolve(), time.monotonic() - began


def median_at_first_rung(sweep: Path) -> float:
    """The median val_elbo of all trials at epoch 1."""
    runs = [EventAccumulator(str(path)).Reload() for path in sweep.glob("tensorboard/[0-9]*")]
    curves = [run.Scalars("validation/elbo") for run in runs if "validation/elbo" in run.Tags()["scalars"]]
    return statistics.median(curve[0].value for curve in curves)


def table_of(summary: dict[str, Any], seconds: float, median: float) -> Table:
    """The rows of the README."""
    best, baseline, counts = summary["best"], summary["baseline"], summary["trials"]
    ended = sum(counts[state] for state in ("stopped", "completed", "failed", "paused"))
    rows = [
        ("seconds in all, install included", f"{seconds:.0f}"),
        (
            "seconds of search; trials tried; epochs",
            f"{summary['search_seconds']:.0f}; {ended}; {summary['epochs_trained']}",
        ),
        (
            "baseline, independent keys, validation / test",
            f"{baseline['marginal_elbo']:.2f} / {baseline['marginal_test_elbo']:.2f}",
        ),
        ("median trial at the first rung, validation", f"{median:.2f}"),
        ("best, ELBO on validation / test", f"{best['val_elbo']:.2f} / {best['test_elbo']:.2f}"),
        (f"best, importance-weighted bound on test (K = {best['iwae_samples']})", f"{best['test_iwae']:.2f}"),
        ("best, KL / code_gain on validation", f"{best['kl']:.3f} / {best['code_gain']:.3f}"),
    ]
    for name, values in summary["samples"].items():
        low, high = values["train_p5"], values["train_p95"]
        rows.append(
            (
                f"samples: {name.replace('_', ' ')} (held-out songs; train's 5th to 95th percentile)",
                f"{values['samples']:.2f} ({values['held_out']:.2f}; {low:.2f} to {high:.2f})",
            )
        )
    return Table(("`make sweep`; bounds in nats per time step, higher is better", "figure"), rows)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.{NAME}", description="`make sweep` in a fresh clone.")
    parser.add_argument("--out", type=Path, help=f"default: benchmarks/results/{NAME}.json")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        sweep, seconds = run_in_a_fresh_clone(Path(folder))
        summary = json.loads((sweep / "summary.json").read_text())
        median = median_at_first_rung(sweep)
    figures = {"seconds": seconds, "median_at_first_rung": median, "summary": summary}
    write(NAME, figures, table_of(summary, seconds, median), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

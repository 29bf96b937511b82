"""A sweep whose trials sleep instead of training, as `benchmarks.cluster_speed` starts it on the head of a cluster.

    python -m benchmarks.sleeping_sweep --data songs.npz --trials 40 --folder DIR

Hosts that share one machine's cores cannot train twice as fast together; asleep they can. All else is a real sweep: its
searcher, its scheduler, its actors with the data. What was reported is written to `reports.csv` in the folder: when, on
which host, and the epochs that were new.
"""

import argparse
import csv
import socket
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray.tune import Callback

from sweep import tuning
from sweep.record import Report, folder_of
from sweep.results import SweepFolder
from sweep.rungs import STOPPING
from sweep.scheduler import Asha
from sweep.searcher import StudySearcher
from sweep.settings import Settings
from sweep.study import Study
from sweep.trial import VaeTrial
from vae.corpus import load_corpus
from vae.trainer import MIN_KL, Trainer

REPORTS = "reports.csv"
MAX_EPOCHS = 9


class SleepingTrial(VaeTrial):  # type: ignore[misc]  # ray ships incomplete types
    """Says after a nap that an epoch was trained."""

    NAP = 1.0  # seconds

    def _train(self, trainer: Trainer, curve: list[dict[str, float]]) -> None:
        time.sleep(self.NAP)
        trainer.epoch += 1
        # The more alike to others, the more trials run to the end: what is measured is not the search.
        curve.append({"epoch": trainer.epoch, "val_elbo": -1.0, "kl": 1.0, "code_gain": 1.0})


class Recorder(Callback):  # type: ignore[misc]  # ray ships incomplete types
    """Writes a line a report."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", buffering=1)
        self._lines = csv.writer(self._file)
        self._lines.writerow(("time", "node", "epochs"))

    def on_trial_result(self, *args: Any, result: dict[str, Any], **info: Any) -> None:
        """Takes one in."""
        del args, info
        report: Report = result["report"]
        self._lines.writerow((time.time(), report.node, len(report.curve)))


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks.sleeping_sweep", description="A sweep that sleeps.")
    parser.add_argument("--data", required=True)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args(argv)
    corpus = load_corpus(args.data)
    tuning.start_ray("auto")
    resources = tuning.find_resources(1, None, joined=True, tell=print)
    families, digest = ("dense",), corpus.fingerprint
    settings = Settings("asleep", args.data, corpus.spec, digest, families, MAX_EPOCHS, 1000, 0, MIN_KL, STOPPING)
    folder = SweepFolder(args.folder, "asleep")
    folder.create()
    scheduler = Asha(Study(folder.journal, settings, args.trials), lambda: False)
    print(f"{socket.gethostname()}: {resources}", flush=True)
    tuning.run_trials(
        corpus,
        settings,
        resources,
        folder.trials,
        folder_of,
        trial=SleepingTrial,
        search_alg=StudySearcher(scheduler, lambda: False, folder.trials.newest, resources.most),
        scheduler=scheduler,
        callbacks=[Recorder(args.folder / REPORTS)],
        max_failures=0,
    )
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

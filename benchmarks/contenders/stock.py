"""Ray Tune's own searcher and scheduler for some minutes, on the space and the objective of a sweep.

As in `documentation`, of which it has the trainable; what differs is that a time ends it, and that it maximises the
rank value, as a sweep does.
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.contenders.documentation import drawn, trainable
from benchmarks.contenders.shared import GRACE_PERIOD, SLOTS, real_suggest, settings_of
from sweep.replay import METRIC
from sweep.rungs import REDUCTION_FACTOR
from sweep.space import first_points
from sweep.stop import GRACE_SECONDS
from vae.corpus import load_corpus
from vae.files import write_atomically
from vae.ranking import is_feasible
from vae.trainer import MAX_EPOCHS

START_SECONDS = 60.0
"""For Ray to bring up the first trial, from which the time counts, as a sweep's does."""


class BestSoFar(tune.Callback):  # type: ignore[misc]  # ray ships incomplete types
    """Follows the best feasible epoch of all trials.

    Args:
        seconds: from the first trial's start; what comes later does not count.
        min_kl: the floor, nats a time step.
    """

    def __init__(self, seconds: float, min_kl: float) -> None:
        self._seconds, self._min_kl = seconds, min_kl
        self.began: float | None = None
        self.epochs, self.best = 0, float("-inf")

    def on_trial_start(self, **info: Any) -> None:
        """A trial's actor is up."""
        del info
        self.began = self.began or time.time()

    def on_trial_result(self, result: dict[str, Any], **info: Any) -> None:
        """An epoch came."""
        del info
        assert self.began is not None
        if time.time() > self.began + self._seconds:
            return
        self.epochs += 1
        if is_feasible(result, self._min_kl):
            self.best = max(self.best, result[METRIC])


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks.contenders.stock", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="an .npz that save_corpus wrote")
    parser.add_argument("--folder", type=Path, required=True, help="for what it writes")
    parser.add_argument("--seconds", type=float, required=True, help="of search")
    parser.add_argument("--epoch-steps", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--first-points", action="store_true", help="begin with those of a sweep")
    args = parser.parse_args()
    task = settings_of(load_corpus(str(args.data)).spec, args.epoch_steps).task
    seen = BestSoFar(args.seconds + GRACE_SECONDS, task.min_kl)
    ray.init(address="local", num_cpus=SLOTS)
    try:
        tune.Tuner(
            trainable(str(args.data.resolve()), args.seed, args.epoch_steps, task.min_kl),
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                search_alg=OptunaSearch(
                    partial(drawn, suggest=real_suggest, task=task),
                    metric=METRIC,
                    mode="max",
                    seed=args.seed,
                    points_to_evaluate=first_points(task) if args.first_points else None,
                ),
                scheduler=ASHAScheduler(max_t=MAX_EPOCHS, grace_period=GRACE_PERIOD, reduction_factor=REDUCTION_FACTOR),
                num_samples=-1,
                time_budget_s=START_SECONDS + args.seconds + GRACE_SECONDS,
            ),
            run_config=tune.RunConfig(storage_path=str(args.folder.resolve()), callbacks=[seen]),
        ).fit()
    finally:
        ray.shutdown()
    found = {"best": seen.best, "epochs": seen.epochs}
    write_atomically(args.folder / "found.json", json.dumps(found).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())

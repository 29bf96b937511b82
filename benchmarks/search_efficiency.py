"""Epochs that searches need to find what random search with ASHA finds in all of its own, on recorded learning curves.

    python -m benchmarks.search_efficiency --data jsb_chorales

The curves are real, see `benchmarks.curves`, of configurations drawn from the search space; for those never trained
`benchmarks.surrogate` answers. `sweep.replay` drives the searchers and schedulers of a sweep with simulated workers.
All search the same space for the same objective, the rank value, and are scored by their best feasible point. The
target is the median of what random search with ASHA has found once the budget is spent. Runs that do not reach it count
as infinite; medians and the ratios between them come with 95% intervals (bootstrap over seeds).
"""

import argparse
import importlib.util
import json
import math
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.common import Table, write
from benchmarks.contenders.bohb import Bohb
from benchmarks.curves import CURVES, read_curves, read_task
from benchmarks.surrogate import Surrogate
from sweep import space
from sweep.replay import METRIC, Moment, Point, Run, Search, TuneSearch, replay
from sweep.scheduler import PROMOTION, REDUCTION_FACTOR, STOPPING, Asha
from sweep.searcher import StudySearcher
from sweep.study import Settings, Study
from vae.ranking import rank_value
from vae.train import MAX_EPOCHS, MIN_KL

NAME = "search_efficiency"
RANDOM, STOCK, BOHB, OURS = "random + ASHA", "OptunaSearch + ASHAScheduler", "BOHB (hpbandster)", "ours"
_RESAMPLES = 2000


def _drawn(trial: optuna.Trial, task: space.Task) -> dict[str, Any]:
    """The space, define-by-run, as `OptunaSearch` takes it."""
    return {"params": space.suggest(trial, task)}


def _stock(
    task: space.Task,
    seed: int,
    folder: Path,
    sampler: optuna.samplers.BaseSampler | None = None,
    defaults: bool = False,
) -> Search:
    """Ray Tune's own searcher and scheduler, at their defaults but for what defines the task."""
    del folder
    searcher = OptunaSearch(
        partial(_drawn, task=task),
        metric=METRIC,
        mode="max",
        points_to_evaluate=space.first_points(task) if defaults else None,
        **({"seed": seed} if sampler is None else {"sampler": sampler}),
    )
    scheduler = ASHAScheduler(
        metric=METRIC, mode="max", max_t=MAX_EPOCHS, grace_period=1, reduction_factor=REDUCTION_FACTOR
    )
    return TuneSearch(searcher, scheduler, MIN_KL)


def _random(task: space.Task, seed: int, folder: Path) -> Search:
    return _stock(task, seed, folder, optuna.samplers.RandomSampler(seed))


def _ours(task: space.Task, seed: int, folder: Path, scheduler: str = PROMOTION) -> Search:
    settings = Settings(
        "replay",
        "replay",
        task.spec,
        "",
        task.families,
        MAX_EPOCHS,
        task.horizon // MAX_EPOCHS,
        seed,
        MIN_KL,
        scheduler,
    )
    asha = Asha(Study(folder / "study.log", settings, sys.maxsize), lambda: False)
    return TuneSearch(StudySearcher(asha, lambda: False, lambda _: None), asha, MIN_KL)


class PlainOptuna:
    """Optuna by itself: TPE and its own pruner, both at their defaults."""

    def __init__(self, task: space.Task, seed: int, folder: Path) -> None:
        del folder
        self._task = task
        self._study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.MedianPruner(),
        )

    def next(self) -> Run:
        """A new trial."""
        trial = self._study.ask()
        return Run(space.suggest(trial, self._task), trial)

    def report(self, run: Run, point: Point) -> bool:
        """The pruner decides."""
        value = rank_value(point.metrics, MIN_KL)
        run.trial.report(value, point.epoch)
        if point.epoch >= MAX_EPOCHS:
            self._study.tell(run.trial, value)
            return False
        if run.trial.should_prune():
            self._study.tell(run.trial, state=optuna.trial.TrialState.PRUNED)
            return False
        return True

    def fail(self, run: Run, reason: str) -> None:
        """Tells Optuna."""
        del reason
        self._study.tell(run.trial, state=optuna.trial.TrialState.FAIL)


def _bohb(task: space.Task, seed: int, folder: Path) -> Search:
    del folder
    return Bohb(task, seed)


CONTENDERS: dict[str, Callable[[space.Task, int, Path], Search]] = {
    RANDOM: _random,
    STOCK: _stock,
    "the same, our first points": partial(_stock, defaults=True),
    "plain Optuna (TPE, MedianPruner)": PlainOptuna,
    BOHB: _bohb,
    "ours, stopping": partial(_ours, scheduler=STOPPING),
    OURS: _ours,
}


@cache
def _surrogate(data: str) -> Surrogate:
    return Surrogate(read_curves(CURVES / data))


def run(job: tuple[str, str, int, int, int]) -> dict[str, Any]:
    """One search, in a process of a pool: contender, data, workers, seed and budget; its moments."""
    contender, data, workers, seed, budget = job
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    surrogate = _surrogate(data)
    with tempfile.TemporaryDirectory() as folder:
        search = CONTENDERS[contender](read_task(CURVES / data), seed, Path(folder))
        moments = replay(search, lambda params: surrogate.curve(params, seed), workers, budget, MIN_KL)
    return {"contender": contender, "workers": workers, "seed": seed, "moments": [_row(m) for m in moments]}


def _row(moment: Moment) -> tuple[float, int, float]:
    return round(moment.seconds, 1), moment.epochs, round(moment.best, 4)


def reached(made: dict[str, Any], target: float) -> tuple[float, float]:
    """Epochs and hours until a search had the target; infinite if it never did."""
    for seconds, epochs, best in made["moments"]:
        if best >= target:
            return float(epochs), seconds / 3600.0
    return math.inf, math.inf


def interval(draw: Callable[[np.random.Generator], float]) -> list[float]:
    """The middle 95% of a statistic over resamples."""
    generator = np.random.default_rng(0)
    values = sorted(draw(generator) for _ in range(_RESAMPLES))
    return [values[int(share * _RESAMPLES)] for share in (0.025, 0.975)]


def _median(values: list[float]) -> float:
    """Without numpy's interpolation, which makes NaN of infinite values."""
    return sorted(values)[(len(values) - 1) // 2]


def _resampled(values: list[float], generator: np.random.Generator) -> float:
    return _median([values[i] for i in generator.integers(len(values), size=len(values))])


def summarise(made: list[dict[str, Any]], workers: int) -> dict[str, Any]:
    """Every contender at a number of workers: the median epochs and hours to the target, and ratios to ours."""
    of = {name: [m for m in made if (m["contender"], m["workers"]) == (name, workers)] for name in CONTENDERS}
    of = {name: runs for name, runs in of.items() if runs}
    final = [m["moments"][-1][2] if m["moments"] else -math.inf for m in of[RANDOM]]
    target = _median(final)
    epochs = {name: [reached(m, target)[0] for m in runs] for name, runs in of.items()}
    rows = {}
    for name, runs in of.items():
        theirs, mine = epochs[name], epochs[OURS]
        rows[name] = {
            "epochs": _median(theirs),
            "epochs_interval": interval(partial(_resampled, theirs)),
            "hours": _median([reached(m, target)[1] for m in runs]),
            "best": _median([m["moments"][-1][2] for m in runs]),
            "reached": sum(value < math.inf for value in theirs),
            "runs": len(runs),
            "ratio": _median(theirs) / _median(mine),
            "ratio_interval": interval(lambda g, t=theirs, m=mine: _resampled(t, g) / _resampled(m, g)),
        }
    return {"target": target, "contenders": rows}


def _figure(value: float, digits: int = 0) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "never"


def table(by_workers: dict[int, dict[str, Any]], budget: int) -> Table:
    """All contenders, for each number of workers."""
    columns = (
        "searches by workers",
        f"reached, of {budget} epochs",
        "epochs to target",
        "95%",
        "hours",
        "over ours",
        "95%",
    )
    lines = []
    for workers, summary in by_workers.items():
        for name, row in summary["contenders"].items():
            low, high = (_figure(value) for value in row["epochs_interval"])
            least, most = (_figure(value, 2) for value in row["ratio_interval"])
            lines.append(
                (
                    f"{workers}: {name}",
                    f"{row['reached']} of {row['runs']}",
                    _figure(row["epochs"]),
                    f"{low} to {high}",
                    _figure(row["hours"], 2),
                    _figure(row["ratio"], 2),
                    f"{least} to {most}",
                )
            )
    return Table(columns, lines)


def measure(args: argparse.Namespace) -> None:
    """Runs all searches and writes what came of them."""
    jobs = [
        (name, args.data, workers, seed, args.epochs)
        for workers in args.workers
        for seed in range(args.seeds)
        for name in args.contender
    ]
    made = []
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for index, one in enumerate(pool.imap_unordered(run, jobs)):
            made.append(one)
            best = one["moments"][-1][2] if one["moments"] else math.nan
            print(f"{index + 1}/{len(jobs)}: {one['workers']} workers, {one['contender']}: {best:.3f}", flush=True)
    curves, surrogate = read_curves(CURVES / args.data), _surrogate(args.data)
    by_workers = {workers: summarise(made, workers) for workers in args.workers}
    at = by_workers[16 if 16 in by_workers else args.workers[0]]["contenders"]
    ratios = {"ratio_random_asha": at[RANDOM], **({"ratio_stock": at[STOCK]} if STOCK in at else {})}
    figures = {
        **{name: row["ratio"] for name, row in ratios.items()},
        "interval": {name: row["ratio_interval"] for name, row in ratios.items()},
        "data": args.data,
        "curves": {
            "configurations": len({curve["number"] for curve in curves}),
            "on_several_seeds": len({curve["number"] for curve in curves if curve["seed"] > 0}),
            "failed": sum(curve["failure"] is not None for curve in curves),
            "rank_correlation_held_out": surrogate.rank_correlations(),
        },
        "by_workers": by_workers,
        "runs": made,
    }
    write(NAME, json.loads(json.dumps(figures)), table(by_workers, args.epochs), args.out)


def _has_bohb() -> bool:
    if importlib.util.find_spec("hpbandster") is not None:
        return True
    print(f"{BOHB} is left out: pip install hpbandster ConfigSpace", flush=True)
    return False


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.{NAME}", description="Compares searches by replay.")
    parser.add_argument("--data", default="jsb_chorales", help="of the curves (default: jsb_chorales)")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 16, 64], metavar="N", help="default: 2 16 64")
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="of each search (default: 20)")
    parser.add_argument("--epochs", type=int, default=600, metavar="N", help="of a search, in all (default: 600)")
    parser.add_argument("--contender", action="append", choices=CONTENDERS, help="repeatable (default: all)")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="at a time (default: 2)")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: benchmarks/results/{NAME}.json")
    args = parser.parse_args(argv)
    args.contender = (
        list(dict.fromkeys([RANDOM, OURS, *args.contender]))
        if args.contender
        else [name for name in CONTENDERS if name != BOHB or _has_bohb()]
    )
    measure(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Epochs that searches need to find what random search with ASHA finds in all of its own, on recorded learning curves.

    python -m benchmarks.search_efficiency --data jsb_chorales

The curves are real, see `benchmarks.curves`, of configurations drawn from the search space; for those never trained
`benchmarks.surrogate` answers. `sweep.replay` drives the searchers and schedulers of a sweep with simulated workers.
All search the same space for the same objective, the rank value, and are scored by their best feasible point.

There are two targets: the median of what random search with ASHA has found once the budget is spent, begun by itself
and begun with the families' defaults, as our searches are. The second tells what a search adds to good defaults. All
may spend three times the budget; runs that do not reach a target then count as infinite. Medians, and their ratios to
ours, come with 95% intervals: runs are drawn again, all contenders' and thereby the target too (bootstrap).
"""

import argparse
import importlib.util
import itertools
import math
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.common import Table, write
from benchmarks.contenders.bohb import Bohb
from benchmarks.contenders.shared import settings_of
from benchmarks.curves import CURVES, read_curves, read_task
from benchmarks.surrogate import Surrogate
from sweep import space
from sweep.replay import METRIC, Moment, Point, Run, Search, TuneSearch, replay
from sweep.rungs import PROMOTION, REDUCTION_FACTOR, STOPPING
from sweep.scheduler import Asha
from sweep.searcher import StudySearcher
from sweep.study import Study
from sweep.tuning import ahead
from vae.errors import UserError, exit_code
from vae.ranking import rank_value
from vae.trainer import MAX_EPOCHS

NAME = "search_efficiency"
RANDOM, STOCK, OURS = "random + ASHA", "OptunaSearch + ASHAScheduler", "ours"
RANDOM_DEFAULTS, STOCK_DEFAULTS = f"{RANDOM}, our first points", f"{STOCK}, our first points"
PLAIN, BOHB = "plain Optuna (TPE, MedianPruner)", "BOHB (hpbandster, flat space)"
OURS_STOPPING = "ours, stopping"
_BASES = (RANDOM, RANDOM_DEFAULTS)
"""Those that set the targets."""
_RATIOS = {
    "ratio_random_asha": (RANDOM, RANDOM),
    "ratio_stock": (RANDOM, STOCK),
    "ratio_random_asha_first_points": (RANDOM_DEFAULTS, RANDOM_DEFAULTS),
    "ratio_stock_first_points": (RANDOM_DEFAULTS, STOCK_DEFAULTS),
}
"""Keys that others read: which target, and whose epochs to it are compared with ours."""
_BEYOND = 3
"""Budgets that a search may spend."""
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
    return TuneSearch(searcher, scheduler, task.min_kl)


def _random(task: space.Task, seed: int, folder: Path, defaults: bool = False) -> Search:
    return _stock(task, seed, folder, optuna.samplers.RandomSampler(seed), defaults)


def _ours(task: space.Task, seed: int, folder: Path, scheduler: str = PROMOTION) -> Search:
    made = settings_of(task.spec, task.horizon // MAX_EPOCHS, task.families)
    settings = replace(made, seed=seed, min_kl=task.min_kl, scheduler=scheduler)
    asha = Asha(Study(folder / "study.log", settings, None), lambda: False)
    return TuneSearch(StudySearcher(asha, lambda: False, lambda _: None), asha, task.min_kl)


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
        value = rank_value(point.metrics, self._task.min_kl)
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
    RANDOM_DEFAULTS: partial(_random, defaults=True),
    STOCK: _stock,
    STOCK_DEFAULTS: partial(_stock, defaults=True),
    PLAIN: PlainOptuna,
    BOHB: _bohb,
    OURS_STOPPING: partial(_ours, scheduler=STOPPING),
    OURS: _ours,
}
_UNPREPARED = (PLAIN, BOHB)
"""Whose workers ask for a trial when they are free; Ray Tune asks for one before, ours has it ask for more."""


def _ahead(contender: str, workers: int) -> int:
    if contender in _UNPREPARED:
        return 0
    return ahead(workers) if contender in (OURS, OURS_STOPPING) else 1


@dataclass(frozen=True)
class Job:
    """A search to be run."""

    contender: str
    data: str
    workers: int
    seed: int
    most_epochs: int
    enough: float = math.inf  # a rank value


@dataclass(frozen=True)
class Made:
    """A search that was run."""

    job: Job
    moments: list[Moment]

    def found(self, epochs: int) -> float:
        """The best after so many epochs."""
        return max((moment.best for moment in self.moments if moment.epochs <= epochs), default=-math.inf)

    def reached(self, target: float) -> tuple[float, float]:
        """Epochs and hours until it had the target; infinite if it never did."""
        first = next((moment for moment in self.moments if moment.best >= target), None)
        return (math.inf, math.inf) if first is None else (float(first.epochs), first.seconds / 3600.0)


@cache
def _surrogate(data: str) -> Surrogate:
    return Surrogate(read_curves(CURVES / data))


def run(job: Job) -> Made:
    """A search, in a process of a pool."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    surrogate = _surrogate(job.data)
    with tempfile.TemporaryDirectory() as folder:
        task = read_task(CURVES / job.data)
        search = CONTENDERS[job.contender](task, job.seed, Path(folder))
        curve_of = partial(surrogate.curve, seed=job.seed)
        asked = _ahead(job.contender, job.workers)
        return Made(job, replay(search, curve_of, job.workers, job.most_epochs, task.min_kl, job.enough, asked))


def _median(values: Sequence[float]) -> float:
    """Without numpy's interpolation, which makes NaN of infinite values."""
    return sorted(values)[(len(values) - 1) // 2]


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """The middle 95%."""
    ordered = sorted(values)
    return ordered[int(0.025 * len(ordered))], ordered[int(0.975 * len(ordered))]


def _ratio(theirs: float, mine: float) -> float:
    """Of epochs; 1 where neither is known, for both never reached the target."""
    return 1.0 if math.isinf(theirs) and math.isinf(mine) else theirs / mine


def _again(runs: Sequence[Made], generator: np.random.Generator) -> list[Made]:
    return [runs[i] for i in generator.integers(len(runs), size=len(runs))]


def resampled(of: dict[str, list[Made]]) -> Iterator[dict[str, list[Made]]]:
    """The runs of each contender, drawn again with replacement, time after time; the same whoever the others are."""
    generators = {name: np.random.default_rng(list(name.encode())) for name in of}
    for _ in range(_RESAMPLES):
        yield {name: _again(runs, generators[name]) for name, runs in of.items()}


def target_of(runs: Sequence[Made], budget: int) -> float:
    """The median of what runs have found once a budget of epochs is spent."""
    return _median([made.found(budget) for made in runs])


def _epochs(of: dict[str, list[Made]], base: str, budget: int) -> dict[str, float]:
    """The median epochs of each contender to the target that a base sets."""
    target = target_of(of[base], budget)
    return {name: _median([made.reached(target)[0] for made in runs]) for name, runs in of.items()}


def summarise(of: dict[str, list[Made]], base: str, budget: int) -> dict[str, Any]:
    """Every contender: the median epochs and hours to the target that a base sets, and ratios to ours."""
    target, epochs = target_of(of[base], budget), _epochs(of, base, budget)
    draws = [_epochs(drawn, base, budget) for drawn in resampled(of)]
    rows = {
        name: {
            "epochs": epochs[name],
            "epochs_interval": _interval([draw[name] for draw in draws]),
            "hours": _median([made.reached(target)[1] for made in runs]),
            "reached": sum(made.reached(target)[0] < math.inf for made in runs),
            "runs": len(runs),
            "ratio": _ratio(epochs[name], epochs[OURS]),
            "ratio_interval": _interval([_ratio(draw[name], draw[OURS]) for draw in draws]),
        }
        for name, runs in of.items()
    }
    return {"target": target, "contenders": rows}


def _figure(value: float, digits: int = 0) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "never"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    low, high = (_figure(value) for value in row["epochs_interval"])
    least, most = (_figure(value, 2) for value in row["ratio_interval"])
    epochs, ratio = _figure(row["epochs"]), _figure(row["ratio"], 2)
    return f"{epochs} ({low} to {high})", _figure(60.0 * row["hours"], 1), f"{ratio} ({least} to {most})"


def table(by_workers: dict[int, dict[str, Any]]) -> Table:
    """All contenders, for each number of workers and both targets."""
    head = ("epochs (95%)", "minutes", "over ours (95%)")
    columns = ("workers: search", *head, *(f"second target: {cell}" for cell in head))
    lines = [
        (f"{workers}: {name}", *_cells(row), *_cells(bases[RANDOM_DEFAULTS]["contenders"][name]))
        for workers, bases in by_workers.items()
        for name, row in bases[RANDOM]["contenders"].items()
    ]
    return Table(columns, lines)


def _run_all(pool: Any, jobs: list[Job]) -> list[Made]:
    made = []
    for index, one in enumerate(pool.imap_unordered(run, jobs)):
        made.append(one)
        job, best = one.job, one.found(one.job.most_epochs)
        print(f"{index + 1}/{len(jobs)}: {job.workers} workers, {job.contender}: {best:.3f}", flush=True)
    return made


def _by_contender(made: list[Made], names: Sequence[str]) -> dict[str, list[Made]]:
    return {name: [one for one in made if one.job.contender == name] for name in names}


def searches(args: argparse.Namespace, workers: int) -> dict[str, list[Made]]:
    """The runs of all contenders, in their order; those that set no target end once they have what resamples ask."""

    def jobs(names: Sequence[str], enough: float = math.inf) -> list[Job]:
        most = _BEYOND * args.epochs
        return [Job(name, args.data, workers, seed, most, enough) for seed in range(args.seeds) for name in names]

    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        made = _run_all(pool, jobs(_BASES))
        bases = resampled(_by_contender(made, _BASES))
        enough = max(target_of(drawn[name], args.epochs) for drawn in bases for name in _BASES)
        made += _run_all(pool, jobs([name for name in args.contender if name not in _BASES], enough))
    return _by_contender(made, args.contender)


def measure(args: argparse.Namespace) -> None:
    """Runs all searches and writes what came of them.

    Raises:
        UserError: there are no curves.
    """
    curves = read_curves(CURVES / args.data)
    if not curves:
        raise UserError(f"{CURVES / args.data}: no curves; record them by python -m benchmarks.curves.")
    surrogate = _surrogate(args.data)
    runs = {workers: searches(args, workers) for workers in args.workers}
    by_workers = {workers: {base: summarise(of, base, args.epochs) for base in _BASES} for workers, of in runs.items()}
    at = by_workers[16 if 16 in by_workers else args.workers[0]]
    ratios = {key: rows[name] for key, (base, name) in _RATIOS.items() if name in (rows := at[base]["contenders"])}
    figures = {
        **{name: row["ratio"] for name, row in ratios.items()},
        "interval": {name: row["ratio_interval"] for name, row in ratios.items()},
        "data": args.data,
        "curves": {
            "configurations": len({curve["number"] for curve in curves}),
            "on_several_seeds": len({curve["number"] for curve in curves if curve["seed"] > 0}),
            "failed": sum(curve["failure"] is not None for curve in curves),
            "rank_correlation_held_out": surrogate.rank_correlations(read_task(CURVES / args.data).min_kl),
        },
        "by_workers": by_workers,
        "moments": [_moments(made) for of in runs.values() for made in itertools.chain(*of.values())],
    }
    write(NAME, _without_infinities(figures), table(by_workers), args.out)


def _moments(made: Made) -> str:
    """A run on a line: seconds, epochs and the best at each moment."""
    moments = " ".join(f"{moment.seconds:.0f},{moment.epochs},{moment.best:.3f}" for moment in made.moments)
    return f"{made.job.workers} workers, {made.job.contender}, seed {made.job.seed}: {moments}"


def _without_infinities(value: Any) -> Any:
    """What JSON can hold: null for what never came."""
    if isinstance(value, dict):
        return {name: _without_infinities(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
    parser.add_argument("--epochs", type=int, default=600, metavar="N", help="the budget (default: 600)")
    parser.add_argument("--contender", action="append", choices=CONTENDERS, help="repeatable (default: all)")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="at a time (default: 2)")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: benchmarks/results/{NAME}.json")
    args = parser.parse_args(argv)
    asked = {*_BASES, OURS, *(args.contender or (name for name in CONTENDERS if name != BOHB or _has_bohb()))}
    args.contender = [name for name in CONTENDERS if name in asked]
    return exit_code(lambda: measure(args))


if __name__ == "__main__":
    sys.exit(main())

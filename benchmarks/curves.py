"""Records whole learning curves of configurations drawn from the search space, by the real trainer on real music.

    python -m benchmarks.curves --data ../shared/data/pianorolls/jsb_chorales.json --minutes 60

What `sweep.replay` plays back to compare searches in seconds. Nothing is stopped early: every configuration trains to
the top rung, unless it fails. Half of the configurations are draws from the whole space, half are a family's defaults
but for a few parameters: searches spend their time where it is good. Configuration i is the same in every run, so a run
goes on where the last one ended; one killed loses the curves in training. `--seeds 3 --count 30` trains the first 30 on
three seeds, which gives the noise.

A curve is a line of JSON in `benchmarks/curves/<data>/<shard>.jsonl.gz`: its number, seed, params, the epochs scored,
each `[epoch, seconds so far, val_elbo, kl, code_gain]`, the seconds in all (on a CPU its own), the failure if there was
one, and where it comes from: the trainer's revision, the steps of an epoch, the processor. Curves of two trainers are
not mixed.
"""

import argparse
import functools
import gzip
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
import torch

from benchmarks.common import ROOT, machine
from benchmarks.contenders.shared import settings_of
from sweep import space
from sweep.rungs import rungs, validates
from sweep.versions import git
from vae.config import Config
from vae.corpus import load_corpus, read_saved, save_corpus
from vae.device import default_device
from vae.encoding import DataSpec
from vae.errors import UserError, exit_code
from vae.files import write_atomically
from vae.trainer import MAX_EPOCHS, DivergedError, Trainer, TrainingData, failure_of

CURVES = ROOT / "benchmarks" / "curves"
_SHARD = 50  # curves in a file, which is written anew for each
_TASK = "task.json"
_METRICS = ("val_elbo", "kl", "code_gain")
_MOST_VARIED = 4  # parameters of a default


def configuration(number: int, task: space.Task) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration `number` of the space: each family's defaults first, then random draws and variations in turns.

    Returns:
        What Optuna drew, and the params that follow.
    """
    points, dice = space.first_points(task), random.Random(number)
    if number < len(points):
        return _drawn(number, task, points[number])
    if number % 2:
        return _drawn(number, task, {})
    point = dice.choice(points)
    names = sorted(_drawn(number, task, point)[0].keys() - {"family"})
    anew = dice.sample(names, dice.randint(1, _MOST_VARIED))
    return _drawn(number, task, {name: value for name, value in point.items() if name not in anew})


def _drawn(seed: int, task: space.Task, fixed: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A random draw but for some parameters, and the params that follow."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    study.enqueue_trial(fixed)
    trial = study.ask()
    params = space.suggest(trial, task)
    return dict(trial.params), params


def train(params: dict[str, Any], data: TrainingData, seed: int, epoch_steps: int) -> dict[str, Any]:
    """Trains to the top rung, scored when a sweep would.

    Returns:
        `epochs`, each `[epoch, seconds, *metrics]`, `seconds` in all, and `failure`.
    """
    at, failure, epochs = rungs(MAX_EPOCHS), None, []
    clock = time.process_time if data.device.type == "cpu" else time.perf_counter  # others may use the machine too
    started = clock()
    try:
        trainer = Trainer(Config.for_data(data.corpus.spec, params), data, seed, epoch_steps)
        while trainer.epoch < MAX_EPOCHS:
            metrics = trainer.train_epoch(validate=validates(trainer.epoch + 1, at))
            if "val_elbo" in metrics:
                seconds = clock() - started
                epochs.append([trainer.epoch, round(seconds, 2), *(round(metrics[name], 4) for name in _METRICS)])
    except (DivergedError, UserError, RuntimeError) as error:
        failure = failure_of(error)
    return {"epochs": epochs, "seconds": round(clock() - started, 2), "failure": failure}


@functools.cache
def _load(path: Path) -> TrainingData:
    torch.set_num_threads(1)
    return TrainingData.load(read_saved(path), default_device())


def _record(job: tuple[int, int, Path, int]) -> dict[str, Any]:
    """One curve, in a worker."""
    number, seed, path, epoch_steps = job
    data = _load(path)
    drawn, params = configuration(number, settings_of(data.corpus.spec, epoch_steps).task)
    return {"number": number, "seed": seed, "drawn": drawn, "params": params, **train(params, data, seed, epoch_steps)}


def read_curves(folder: Path) -> list[dict[str, Any]]:
    """All curves recorded of some data, by number and seed."""
    shards = [gzip.decompress(path.read_bytes()).decode() for path in sorted(folder.glob("*.jsonl.gz"))]
    curves = [json.loads(line) for shard in shards for line in shard.splitlines()]
    return sorted(curves, key=lambda curve: (curve["number"], curve["seed"]))


def write_curves(folder: Path, curves: list[dict[str, Any]]) -> None:
    """Writes shards, each at once; those that would not change are left."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in {curve["number"] // _SHARD for curve in curves}:
        within = [curve for curve in curves if curve["number"] // _SHARD == shard]
        within.sort(key=lambda curve: (curve["number"], curve["seed"]))
        text = "".join(json.dumps(curve) + "\n" for curve in within)
        path, packed = folder / f"{shard:03d}.jsonl.gz", gzip.compress(text.encode(), mtime=0)
        if not path.exists() or path.read_bytes() != packed:
            write_atomically(path, packed)


def write_task(folder: Path, task: space.Task) -> None:
    """Keeps the space that the configurations were drawn from."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / _TASK, (json.dumps(asdict(task), indent=2) + "\n").encode())


def read_task(folder: Path) -> space.Task:
    """The space that `write_task` kept."""
    kept = json.loads((folder / _TASK).read_text())
    return space.Task(**{**kept, "families": tuple(kept["families"]), "spec": DataSpec(**kept["spec"])})


def trainer_revision() -> str:
    """The last commit that changed the models, the trainer or the space."""
    return git("log", "-1", "--format=%h", "--", "vae", "sweep/space.py")


def record(args: argparse.Namespace) -> None:
    """Records curves until all are there or the time is over.

    Raises:
        UserError: those that are there come from another trainer, or have epochs of another length.
    """
    folder = args.out or CURVES / Path(args.data).stem
    curves = read_curves(folder)
    _require_same(folder, curves, "revision", {trainer_revision(), *args.compatible})
    _require_same(folder, curves, "epoch_steps", {args.epoch_steps})
    done = {(curve["number"], curve["seed"]) for curve in curves}
    wanted = [(n, seed) for seed in range(args.seeds) for n in range(args.count) if (n, seed) not in done]
    here = machine()
    where = f"{', '.join([here['processor'], *here['gpus']])}, {args.workers} at a time"
    origin = {"revision": trainer_revision(), "epoch_steps": args.epoch_steps, "machine": where}
    with tempfile.TemporaryDirectory(prefix="curves-") as scratch:
        saved = Path(scratch) / "corpus.npz"
        corpus = load_corpus(args.data, None, None, args.steps_per_bar)
        save_corpus(corpus, saved)
        write_task(folder, settings_of(corpus.spec, args.epoch_steps).task)
        jobs = [(number, seed, saved, args.epoch_steps) for number, seed in wanted]
        for made in _in_parallel(jobs, args.workers, 60.0 * args.minutes):
            curves.append({**made, **origin})
            write_curves(folder, curves)
            print(_line(made, len(curves)), flush=True)


def _require_same(folder: Path, curves: list[dict[str, Any]], name: str, values: set[Any]) -> None:
    if others := {curve[name] for curve in curves} - values:
        raise UserError(
            f"{folder}: has curves of {name} {_listed(others)}, not {_listed(values)}; move them away, or pass another "
            f"--out."
        )


def _listed(values: set[Any]) -> str:
    return ", ".join(map(str, values))


def _in_parallel(jobs: list[Any], workers: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Curves as they come; what is in training when the time is over is dropped."""
    deadline = time.monotonic() + seconds
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        made = pool.imap_unordered(_record, jobs)
        for _ in jobs:
            try:
                yield made.next(timeout=max(0.0, deadline - time.monotonic()))
            except multiprocessing.TimeoutError:
                return


def _line(curve: dict[str, Any], recorded: int) -> str:
    last = curve["epochs"][-1] if curve["epochs"] else None
    end = "no epoch" if last is None else f"epoch {last[0]}, {last[1]:.0f} s: val_elbo {last[2]:.3f}, kl {last[3]:.3f}"
    failed = f"; {curve['failure']}" if curve["failure"] else ""
    return f"{recorded} curves; {curve['number']}, seed {curve['seed']} ({curve['params']['family']}): {end}{failed}"


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks.curves", description="Records learning curves.")
    parser.add_argument("--data", required=True, help="as of sweep.run")
    parser.add_argument("--steps-per-bar", type=int, metavar="N", help="as of sweep.run")
    parser.add_argument("--count", type=int, default=400, metavar="N", help="configurations (default: 400)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="of each (default: 1)")
    parser.add_argument("--epoch-steps", type=int, default=30_000, metavar="N", help="of an epoch (default: 30000)")
    parser.add_argument("--minutes", type=float, default=60.0, help="then it ends, to be gone on with (default: 60)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="at a time, a core each (default: 2)")
    parser.add_argument(
        "--compatible",
        action="append",
        default=[],
        metavar="REVISION",
        help="of a trainer that computes the same, whose curves are gone on with; repeatable",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"default: {CURVES.relative_to(ROOT)}/<data>")
    args = parser.parse_args(argv)
    return exit_code(lambda: record(args))


if __name__ == "__main__":
    sys.exit(main())

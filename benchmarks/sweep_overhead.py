"""Command: `python -m benchmarks.sweep_overhead`: what searching costs beside training, in three contenders.

The same trainer, data, space, top rung and number of trials, two trials at a time on two cores, one thread each:

- sweep: this project's command `python -m sweep.run`;
- documentation: Ray Tune as its documentation shows it (`benchmarks/contenders/documentation.py`);
- optuna: plain Optuna in two processes, no Ray (`benchmarks/contenders/plain_optuna.py`).

They take turns, `--repeats` times. Each decides by itself what to train, so their trials differ. For epochs to cost
alike nevertheless, the space is pinned: every contender draws from the project's whole space, so its sampler has all
its work, and what an epoch's cost hangs on (layers, widths, latent_dim, window, batch_steps, dropouts, transposition)
is then set to the family's first point; learning rate, schedules, weight decay and what holds the KL vary. Ours is then
run by `benchmarks/contenders/pinned_sweep.py`, which is `sweep.run` but for that. `--space real` pins nothing and runs
the command itself; then epochs of different contenders cost differently, and only overheads compare.

Measured of each, where `search` is from the first trial's start to the last trial's end:

- wall seconds an epoch: search / epochs trained;
- train_share: seconds inside the optimizer's loop / (2 * search);
- overhead_ms, an epoch and slot: 1000 * (2 * search - seconds inside the optimizer's loop) / epochs. All else is in it:
  validation, which the trainer does after each epoch in every contender alike (`validation_ms`, where known), building
  models, start-up of trials, checkpoints, and the slot that idles when the last trial runs alone;
- start-up: from the command's start to the first trial's start; whole: the command's wall seconds, for ours with the
  test of the winner and its samples, which the others don't do.

`overhead_beyond_validation_ms` is our overhead less the validation that plain Optuna's trials measured in the same turn
(the trainer is the same). The ratios are theirs over ours, in the same turn; figures are medians over the turns.
Peers have their advantages: plain Optuna keeps no checkpoints, and the documentation's checkpoint holds weights alone.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, ROOT, Table, environment, write
from benchmarks.contenders.shared import SLOTS, SPACES, pins, settings_of
from benchmarks.memory import MemoryWatch
from vae.config import FAMILY_NAMES
from vae.corpus import load_corpus, save_corpus
from vae.encoding import DataSpec
from vae.trainer import MAX_EPOCHS

NAME = "sweep_overhead"
TITLES = {"sweep": "this sweep", "documentation": "Ray Tune, documentation style", "optuna": "Optuna, two processes"}
_ONE_PASS = 13_807  # time steps of the JSB chorales' train split
_COLUMNS = ("", "wall s / epoch", "train share", "overhead ms", "train ms / epoch", "epochs", "start-up s", "ratio")


class Failed(Exception):  # noqa: N818  # says what happened
    """A contender did not end well."""


class Turn:
    """One run of one contender.

    Args:
        args: of the benchmark.
        corpus: the data as `.npz`.
        spec: of the data.
        folder: an empty one.
        seed: of the search.
    """

    def __init__(self, args: argparse.Namespace, corpus: Path, spec: DataSpec, folder: Path, seed: int) -> None:
        self._args, self._corpus, self._spec, self._folder, self._seed = args, corpus, spec, folder, seed

    def run(self, contender: str) -> dict[str, Any]:
        """Its figures."""
        load = os.getloadavg()[0]
        figures: dict[str, Any] = {"sweep": self._sweep, "documentation": self._peer, "optuna": self._peer}[contender](
            contender
        )
        search, train, epochs = figures["search_seconds"], figures["train_seconds"], figures["epochs"]
        return figures | {
            "wall_seconds_an_epoch": search / epochs,
            "train_share": train / (search * SLOTS),
            "overhead_ms": 1000 * (search * SLOTS - train) / epochs,
            "train_ms": 1000 * train / epochs,
            "load_before": load,  # other work on the machine would disturb the figures
        }

    def _options(self) -> list[str]:
        families = [word for family in self._args.family for word in ("--family", family)]
        numbers = ["--trials", str(self._args.trials), "--epoch-steps", str(self._args.epoch_steps)]
        return [*families, *numbers, "--seed", str(self._seed)]

    def _sweep(self, contender: str) -> dict[str, Any]:
        module = "benchmarks.contenders.pinned_sweep" if self._args.space == "pinned" else "sweep.run"
        words = ["--data", self._args.data, "--results", str(self._folder), "--name", contender]
        words += ["--max-epochs", str(MAX_EPOCHS), "--max-concurrent", str(SLOTS), "--final-seeds", "1"]
        began = time.time()
        process = self._start(module, [*words, *self._options()], contender)
        with MemoryWatch(process.pid) as memory:
            self._wait(process, contender)
        ended = time.time()
        path = self._folder / contender / "summary.json"
        summary = json.loads(path.read_text())
        self._check_pins(path.with_name("trials.csv"))
        # The command counts from after its imports; it wrote its last summary `wall_seconds` after that.
        imports = path.stat().st_mtime - summary["wall_seconds"] - began
        return {
            "trials": sum(summary["trials"][state] for state in ("stopped", "completed", "failed")),
            "failed": summary["trials"]["failed"],
            "epochs": summary["epochs_trained"],
            "train_seconds": summary["train_seconds"],
            "search_seconds": summary["search_seconds"],
            "startup_seconds": imports + summary["startup_seconds"],
            "whole_seconds": ended - began,
            "validation_ms": None,
            "driver_rss_mib": memory.idle_driver,
            "actor_rss_mib": memory.peak_actor,
        }

    def _check_pins(self, trials: Path) -> None:
        if self._args.space == "real":
            return
        task = settings_of(self._spec, self._args.epoch_steps, self._args.family).task
        with trials.open() as file:
            for row in csv.DictReader(file):
                params = json.loads(row["params"])
                if params | pins(params["family"], task) != params:
                    raise Failed(f"trial {row['id']} of the sweep was not pinned: {params}; see pinned_sweep.py")

    def _peer(self, contender: str) -> dict[str, Any]:
        """Ray Tune in one process, or Optuna in two."""
        module = {"documentation": "documentation", "optuna": "plain_optuna"}[contender]
        workers = SLOTS if contender == "optuna" else 1
        began = time.time()
        processes = []
        for worker in range(workers):
            words = ["--data", str(self._corpus), "--folder", str(self._folder), "--space", self._args.space]
            words += ["--tally", str(self._tally(worker)), *self._options()]
            words[-1] = str(self._seed + worker)  # the workers of a study must not draw alike
            processes.append(self._start(f"benchmarks.contenders.{module}", words, f"{contender}-{worker}"))
        try:
            for worker, process in enumerate(processes):
                self._wait(process, f"{contender}-{worker}")
        finally:
            for process in processes:  # if one failed, the others must not go on
                process.terminate()
        ended = time.time()
        tallies = [json.loads(self._tally(worker).read_text()) for worker in range(workers)]
        total = {key: sum(t[key] for t in tallies) for key in ("trials", "failed", "epochs", "train_seconds")}
        first = min(tally["first_start"] for tally in tallies)
        return total | {
            "search_seconds": max(tally["last_end"] for tally in tallies) - first,
            "startup_seconds": first - began,
            "whole_seconds": ended - began,
            "validation_ms": 1000 * sum(tally["validation_seconds"] for tally in tallies) / total["epochs"],
        }

    def _tally(self, worker: int) -> Path:
        return self._folder / f"tally-{worker}.json"

    def _start(self, module: str, words: list[str], log: str) -> "subprocess.Popen[bytes]":
        with (self._folder / f"{log}.log").open("wb") as file:
            return subprocess.Popen(
                (sys.executable, "-m", module, *words), env=environment(), stdout=file, stderr=subprocess.STDOUT
            )

    def _wait(self, process: "subprocess.Popen[bytes]", log: str) -> None:
        if process.wait() != 0:
            tail = (self._folder / f"{log}.log").read_text(errors="replace").splitlines()[-20:]
            raise Failed("\n".join((f"{log} ended with {process.returncode}:", *tail)))


def measure(args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """All turns, by contender."""
    runs: dict[str, list[dict[str, Any]]] = {contender: [] for contender in TITLES}
    with tempfile.TemporaryDirectory(prefix="sweep-overhead-") as scratch:
        corpus = load_corpus(args.data)
        saved = Path(scratch) / "corpus.npz"
        save_corpus(corpus, saved)
        for repeat in range(args.repeats):
            for contender in TITLES:
                folder = Path(scratch) / f"{contender}-{repeat}"
                folder.mkdir()
                figures = Turn(args, saved, corpus.spec, folder, args.seed + 1000 * repeat).run(contender)
                shutil.rmtree(folder)
                runs[contender].append(figures)
                print(
                    f"{repeat + 1}/{args.repeats} {TITLES[contender]}: {figures['epochs']} epochs in "
                    f"{figures['search_seconds']:.1f} s, train share {figures['train_share']:.3f}, "
                    f"overhead {figures['overhead_ms']:.1f} ms",
                    flush=True,
                )
    return runs


def medians(runs: list[dict[str, Any]]) -> dict[str, float | None]:
    """The median of every figure."""
    return {key: None if runs[0][key] is None else statistics.median(run[key] for run in runs) for key in runs[0]}


def ratio(runs: dict[str, list[dict[str, Any]]], peer: str, key: str) -> float:
    """The median over turns of a peer's figure over ours in the same turn."""
    ratios: list[float] = [theirs[key] / ours[key] for theirs, ours in zip(runs[peer], runs["sweep"], strict=True)]
    return statistics.median(ratios)


def summarise(args: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What is written."""
    typical = {contender: medians(turns) for contender, turns in runs.items()}
    ours = typical["sweep"]
    peers = ("documentation", "optuna")
    return {
        **{key: ours[key] for key in ("train_share", "overhead_ms", "driver_rss_mib", "actor_rss_mib")},
        "overhead_beyond_validation_ms": statistics.median(
            mine["overhead_ms"] - theirs["validation_ms"]
            for mine, theirs in zip(runs["sweep"], runs["optuna"], strict=True)
        ),
        **{f"ratio_{peer}": ratio(runs, peer, "wall_seconds_an_epoch") for peer in peers},
        **{f"ratio_overhead_{peer}": ratio(runs, peer, "overhead_ms") for peer in peers},
        "settings": {
            "data": Path(args.data).name,
            "max_epochs": MAX_EPOCHS,
            "slots": SLOTS,
            **{key: getattr(args, key) for key in ("space", "family", "trials", "epoch_steps", "repeats", "seed")},
        },
        "contenders": {contender: {**typical[contender], "runs": runs[contender]} for contender in runs},
    }


def table(figures: dict[str, Any]) -> Table:
    """A row a contender; the ratio is theirs over ours, of wall seconds an epoch."""
    rows = []
    for contender, title in TITLES.items():
        row = figures["contenders"][contender]
        rows.append(
            (
                title,
                f"{row['wall_seconds_an_epoch']:.3f}",
                f"{row['train_share']:.2f}",
                f"{row['overhead_ms']:.0f}",
                f"{row['train_ms']:.0f}",
                f"{row['epochs']:.0f}",
                f"{row['startup_seconds']:.1f}",
                f"{figures.get(f'ratio_{contender}', 1.0):.2f}",
            )
        )
    return Table(_COLUMNS, rows)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        f"python -m benchmarks.{NAME}", description="Measures what searching costs beside training; peers included."
    )
    parser.add_argument("--data", default="bach", metavar="NAME|PATH", help="as of sweep.run (default: bach)")
    parser.add_argument("--family", action="append", choices=FAMILY_NAMES, help="default: dense; repeatable")
    parser.add_argument("--space", choices=SPACES, default=SPACES[0], help="pinned: epochs cost alike (default)")
    parser.add_argument("--trials", type=int, default=60, metavar="N", help="of each contender (default: 60)")
    parser.add_argument(
        "--epoch-steps", type=int, default=_ONE_PASS, metavar="N", help=f"time steps in an epoch (default: {_ONE_PASS})"
    )
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="turns of each contender (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: {RESULTS.relative_to(ROOT)}/{NAME}.json")
    args = parser.parse_args(argv)
    args.family = list(dict.fromkeys(args.family or ["dense"]))
    return args


def _keep_to_two_cores() -> None:
    """On machines that have more; children inherit it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:SLOTS])


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parse(argv)
    _keep_to_two_cores()
    try:
        figures = summarise(args, measure(args))
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    write(NAME, figures, table(figures), args.out)
    print(
        f"this sweep: overhead beyond validation {figures['overhead_beyond_validation_ms']:.0f} ms; idle driver "
        f"{figures['driver_rss_mib']:.0f} MiB, largest trial actor {figures['actor_rss_mib']:.0f} MiB\n"
        f"overhead, theirs over ours: documentation {figures['ratio_overhead_documentation']:.1f}, optuna "
        f"{figures['ratio_overhead_optuna']:.1f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

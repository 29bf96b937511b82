"""Pairs of real sweeps, ours against Ray Tune's own searcher and scheduler, for equal time on one machine.

    python -m benchmarks.real_pairs --data ../shared/data/pianorolls/jsb_chorales.json --minutes 12

Both search the same space for the same objective, the rank value, with two workers, and are compared by the best
feasible epoch that any trial had when the time was over. It counts from the first trial's start, and ends with the
seconds that a sweep gives to running epochs; final runs are left out. With `--first-points` Ray Tune's begins with the
families' defaults too. The pairs run in turns, each with a seed of its own. Pairs recorded earlier stay, so that they
can be made one at a time; `--again` begins anew.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import Table, environment, recorded, run_module, write
from benchmarks.contenders.shared import SLOTS
from sweep.results import SweepFolder
from sweep.versions import revision
from vae.corpus import load_corpus, save_corpus
from vae.trainer import MAX_EPOCHS

NAME = "real_pairs"
OURS, STOCK = "ours", "OptunaSearch + ASHAScheduler"


def ours(args: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    """A sweep; its best feasible epoch, None if there was none, and the epochs of all trials."""
    words = ["--data", args.data, "--results", str(folder), "--name", "ours", "--seed", str(seed)]
    words += ["--time-budget", f"{args.minutes}m", "--epoch-steps", str(args.epoch_steps), "--final-seeds", "1"]
    run_module("sweep.run", [*words, "--max-epochs", str(MAX_EPOCHS), "--max-concurrent", str(SLOTS)])
    summary = SweepFolder(folder, "ours").read_summary()
    best = summary["best"]
    return {"best": best["val_elbo"] if best["feasible"] else None, "epochs": summary["epochs_trained"]}


def stock(args: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    """Ray Tune's own; the same figures."""
    saved = folder / "corpus.npz"
    save_corpus(load_corpus(args.data), saved)
    words = ["--data", str(saved), "--folder", str(folder), "--seconds", str(60.0 * args.minutes)]
    words += ["--epoch-steps", str(args.epoch_steps), "--seed", str(seed)]
    words += ["--first-points"] if args.first_points else []
    command = (sys.executable, "-m", "benchmarks.contenders.stock", *words)
    subprocess.run(command, env=environment(), check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found | {"best": found["best"] if found["best"] > float("-inf") else None}


def table(pairs: list[dict[str, Any]]) -> Table:
    """A row a pair, and the median."""
    rows = []
    for pair in pairs:
        begun = ", both with our first points" if pair["first_points"] else ""
        title = f"{pair['data']}, {pair['minutes']:g} minutes, seed {pair['seed']}{begun}"
        rows.append((title, *_cells(pair[OURS]), *_cells(pair[STOCK])))
    columns = [f"{name}: {what}" for name in (OURS, STOCK) for what in ("best feasible ELBO", "epochs")]
    return Table(("on validation, nats a step", *columns), rows)


def _cells(found: dict[str, Any]) -> tuple[str, str]:
    return ("none" if found["best"] is None else f"{found['best']:.3f}"), str(found["epochs"])


def _worth(found: dict[str, Any]) -> float:
    return -math.inf if found["best"] is None else float(found["best"])


def measure(args: argparse.Namespace) -> None:
    """Runs the pairs that are left to do, and records each as it comes."""
    pairs = [] if args.again else recorded(NAME, "pairs", args.out)
    asked = {"data": Path(args.data).stem, "minutes": args.minutes, "epoch_steps": args.epoch_steps}
    for seed in range(args.pairs):
        pair: dict[str, Any] = {**asked, "first_points": args.first_points, "seed": seed}
        if any(pair.items() <= known.items() for known in pairs):
            continue
        pair["revision"] = revision()
        for name, run in ((OURS, ours), (STOCK, stock)):
            with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as folder:
                pair[name] = run(args, Path(folder), seed)
        pairs.append(pair)
        ahead = sum(_worth(pair[OURS]) > _worth(pair[STOCK]) for pair in pairs)
        figures = {"ours_ahead": ahead, "of": len(pairs), "pairs": pairs}
        write(NAME, figures, table(pairs), args.out)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.{NAME}", description="Real sweeps, ours against stock.")
    parser.add_argument("--data", required=True, metavar="PATH", help="as of sweep.run")
    parser.add_argument("--minutes", type=float, default=12.0, help="of each search (default: 12)")
    parser.add_argument("--pairs", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--epoch-steps", type=int, default=30_000, metavar="N", help="of an epoch (default: 30000)")
    parser.add_argument("--first-points", action="store_true", help="Ray Tune's begins with our first points too")
    parser.add_argument("--again", action="store_true", help="forget the pairs recorded so far")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: benchmarks/results/{NAME}.json")
    measure(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())

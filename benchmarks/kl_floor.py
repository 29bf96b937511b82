"""What the floor under the KL is for: a family searched with it, and without.

    python -m benchmarks.kl_floor --data ../shared/data/pianorolls/jsb_chorales.json --family recurrent --minutes 10

An LSTM that sees all earlier steps can do without its code, and the ELBO alone has nothing against that. Both searches
have the same time, seed and space but for what follows from the floor: with it the KL is steered above it in training,
and trials are ranked, and the winner chosen, by `vae.ranking`; without it by the ELBO alone. The winners' figures are
those on validation; each sweep reads test once at its end, as all do, and nothing of that is used here.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, ROOT, Table, run_module, write
from sweep.results import SweepFolder
from vae.config import FAMILY_NAMES, kl_as_wide
from vae.corpus import load_corpus
from vae.errors import UserError, exit_code
from vae.trainer import MIN_KL

NAME = "kl_floor"
_SHOWN = ("val_elbo", "kl", "code_gain", "active_units")


def search(args: argparse.Namespace, family: str, floor: float, results: Path) -> dict[str, Any]:
    """The winner of a sweep of one family, as `summary.json` has it, and how many trials ended."""
    words = ["--data", args.data, "--name", f"{family}-{floor:g}", "--results", str(results)]
    words += ["--family", family, "--min-kl", str(floor), "--seed", str(args.seed), "--final-seeds", "1"]
    words += ["--steps-per-bar", str(args.steps_per_bar)] if args.steps_per_bar is not None else []
    run_module("sweep.run", [*words, "--time-budget", f"{args.minutes}m"])
    summary = SweepFolder(results, f"{family}-{floor:g}").read_summary()
    if not summary:
        raise UserError(f"--family {family}: no sweep came about, see above.")
    counts = summary["trials"]
    ended = counts["stopped"] + counts["completed"]
    return {"family": family, "min_kl": floor, "ended": ended, **summary["best"]}


def _floor(args: argparse.Namespace) -> float:
    """That of a sweep over the data by default, nats a time step."""
    return kl_as_wide(load_corpus(args.data, None, None, args.steps_per_bar).spec, MIN_KL)


def table(rows: list[dict[str, Any]]) -> Table:
    """A row a search."""
    lines = [
        (
            f"{row['family']}, floor {row['min_kl']:g}",
            f"{-row['val_elbo']:.2f}",
            f"{row['kl']:.3f}",
            f"{row['code_gain']:.3f}",
            f"{row['active_units']:.0f}",
            str(row["ended"]),
        )
        for row in rows
    ]
    return Table(("winner, nats per time step of validation", "-ELBO", "KL", "code_gain", "active", "trials"), lines)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.{NAME}", description="A search with and without a floor.")
    parser.add_argument("--data", required=True, metavar="PATH", help="as of sweep.run")
    parser.add_argument("--family", action="append", choices=FAMILY_NAMES, help="repeatable (default: recurrent)")
    parser.add_argument("--steps-per-bar", type=int, metavar="N", help="as of sweep.run")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each search (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: {RESULTS.relative_to(ROOT)}/{NAME}.json")
    args = parser.parse_args(argv)
    return exit_code(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Makes the table."""
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as scratch:
        families, floors = args.family or ["recurrent"], (_floor(args), 0.0)
        rows = [search(args, family, floor, Path(scratch)) for family in families for floor in floors]
    chosen = [{name: row[name] for name in ("family", "min_kl", "ended", *_SHOWN, "params")} for row in rows]
    write(NAME, {"rows": chosen}, table(chosen), args.out)


if __name__ == "__main__":
    sys.exit(main())

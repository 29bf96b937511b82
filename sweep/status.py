"""Command: `python -m sweep.status` tells how far a sweep is, wherever its results are."""

import argparse
import sys
from typing import Any

from sweep.live import duration, finals_told
from sweep.results import SweepFolder, chosen
from sweep.uploads import fetch
from vae.arguments import Parser, add_results_argument
from vae.errors import UserError, exit_code
from vae.files import printable
from vae.store import is_remote


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        "python -m sweep.status",
        description="Tells how far a sweep is: trials by state, epochs, the best so far. It runs on undisturbed.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the sweep (default: the newest)")
    add_results_argument(parser)
    return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> None:
    folder = chosen(args.results, args.name)
    fetch(folder, folder.summary.name)
    summary = folder.read_summary()
    if not summary:
        raise UserError(f"{folder.place}/{folder.name}: no sweep there; pass another NAME or --results.")
    sys.stdout.write("".join(f"{line}\n" for line in (*lines(summary), *_left(folder, summary))))


def lines(summary: dict[str, Any]) -> list[str]:
    """A summary in words."""
    trials = dict(summary["trials"])
    requested = trials.pop("requested")
    states = "".join(f", {count} {state}" for state, count in trials.items() if count)
    time = "" if summary["search_seconds"] is None else f" in {duration(summary['search_seconds'])} of search"
    return [
        f"sweep {summary['name']} of {printable(summary['data'])}: {requested} trials{states}",
        f"{summary['epochs_trained']} epochs{time}",
        *([finals_told(summary["finals"])] if summary.get("finals") else []),
        _best(summary["best"]),
    ]


def _left(folder: SweepFolder, summary: dict[str, Any]) -> list[str]:
    """How to go on with a sweep that was killed; whether one in an object store runs is not known here."""
    ended = summary["best"]["test_elbo"] is not None
    if ended or is_remote(folder.place) or folder.is_driven():
        return []
    return [f"it does not run; go on with: python -m sweep.run {folder.again}"]


def _best(best: dict[str, Any]) -> str:
    if best["trial"] is None:
        return "best: none yet"
    feasible = "" if best["feasible"] else "; its code says too little"
    test = "" if best["test_elbo"] is None else f", test_elbo {best['test_elbo']:.3f}"
    return (
        f"best: trial {best['trial']} ({best['params']['family']}) at epoch {best['epoch']:.0f}: "
        f"val_elbo {best['val_elbo']:.3f}, kl {best['kl']:.3f}, code_gain {best['code_gain']:.3f}"
        f"{test}{feasible}"
    )


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parse(argv)
    return exit_code(lambda: _run(args))


if __name__ == "__main__":
    sys.exit(main())

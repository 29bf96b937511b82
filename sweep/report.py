"""Command: `python -m sweep.report` shows what a sweep has found so far, and why."""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter

from sweep.figures import front, importances, parallel, progress, slices, survival
from sweep.page import Section, missing, picture, render, table
from sweep.reading import Reading, TooFewError, read
from sweep.results import SweepFolder, chosen
from sweep.uploads import fetch
from sweep.words import top_rows, words
from vae import canvas
from vae.arguments import Parser, add_results_argument
from vae.errors import UserError, exit_code
from vae.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class _Plan:
    """A section that holds a figure."""

    name: str
    title: str
    what: str
    draw: Callable[[Reading], "Figure"]


_RANK = "Rank value, what trials compete by, is the ELBO on validation, less 10 for each nat of KL below the floor."

_PLANS = (
    _Plan(
        "progress",
        "Best so far",
        "Trials by the ELBO of their best epoch, where they ended. The line follows the best so far as the winner is "
        "chosen: feasible ones first, then by rank value. Marks on the lower edge lie below it.",
        progress.draw,
    ),
    _Plan(
        "survival",
        "Rung survival",
        "How many trials were drawn, how many reached each rung, and what became of them there.",
        survival.draw,
    ),
    _Plan(
        "importance",
        "Parameter importance",
        "What sets the best trials apart from all others that have a value or failed, in the sampler's order: by value "
        "at the highest rung that enough have reached, then at lower ones (conditional PED-ANOVA). The black mark is "
        "what one in 20 random orders of the same trials exceeds: pale bars, which stay below it, say nothing. Most "
        "proposals vary a good trial: what that happened to have, its variations have too, and it looks important. A "
        "parameter that only some families have counts for as much as those families do. What the sampler has "
        "settled on, and hardly varies any more, can't stand out.",
        importances.draw,
    ),
    _Plan(
        "parallel",
        "Parallel coordinates",
        "The most important parameters, and what came of them at the first rung and at the one that trials are "
        "compared at. Lines below an axis: the trial has no such parameter, or a value that the space no longer has, "
        f"or did not get there. {_RANK}",
        parallel.draw,
    ),
    _Plan("slices", "Slices", f"Rank value against each parameter, the most important first. {_RANK}", slices.draw),
    _Plan(
        "front",
        "ELBO against KL",
        "Each trial at its best epoch of the search. Circled is the best, of final runs if there were any. The front "
        "joins trials that no other beats in both; left of the floor a code says too little to steer by. "
        "Infeasible: below the floor, or a code that the decoder makes too little of.",
        front.draw,
    ),
)


def _sections(reading: Reading, board: SummaryWriter) -> list[Section]:
    first, *others = (_section(plan, reading, board) for plan in _PLANS)
    return [
        first,
        Section(
            "top",
            "Top trials",
            "By their best epoch of the search, as the winner is chosen unless final runs do.",
            _top(reading),
        ),
        *others,
    ]


def _top(reading: Reading) -> str:
    return table(top_rows(reading)) if reading.ranked() else missing("no trial has been scored on validation yet")


def _section(plan: _Plan, reading: Reading, board: SummaryWriter) -> Section:
    try:
        figure = plan.draw(reading)
    except TooFewError as error:
        return Section(plan.name, plan.title, plan.what, missing(str(error)))
    board.add_image(f"report/{plan.name}", canvas.pixels(figure), reading.epochs, dataformats="HWC")
    return Section(plan.name, plan.title, plan.what, picture(canvas.png(figure), plan.title))


def write(folder: SweepFolder, out: Path | None = None) -> Path:
    """Writes the report of a sweep, and its figures to TensorBoard in the place of earlier ones, if the sweep is ours.

    Args:
        folder: of the sweep.
        out: the page, instead of `report.html` in the folder.

    Returns:
        The page.

    Raises:
        UserError: there is no such sweep, or nothing of it yet.
    """
    reading, path = read(folder), out or folder.path / "report.html"
    try:
        with tempfile.TemporaryDirectory() as scratch:
            events = folder.tensorboard / "report" if os.access(folder.path, os.W_OK) else Path(scratch)
            shutil.rmtree(events, ignore_errors=True)
            with SummaryWriter(str(events)) as board:
                sections = _sections(reading, board)
        page = render(f"Sweep {reading.settings.name}", words(reading), sections)
        write_atomically(path, page.encode())
    except OSError as error:
        raise UserError(f"{error.filename or path}: can't be written ({error.strerror}); see --out.") from None
    return path


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        "python -m sweep.report",
        description="Shows a sweep, finished or still running, on one page: the best so far, what became of the "
        "trials, which hyperparameters matter. A running sweep goes on undisturbed.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the sweep (default: the newest)")
    add_results_argument(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the folder of the sweep here")
    return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> None:
    folder = chosen(args.results, args.name)
    fetch(folder)
    path = write(folder, args.out)
    sys.stdout.write(f"report: {path}\nits figures: tensorboard --logdir {quote(str(folder.tensorboard))}\n")


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parse(argv)
    return exit_code(lambda: _run(args))


if __name__ == "__main__":
    sys.exit(main())

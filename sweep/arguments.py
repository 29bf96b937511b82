"""The command line of `sweep.run`: what it takes, and what it refuses."""

import argparse
import re
from pathlib import Path
from shlex import quote

from sweep.rungs import KINDS, PROMOTION
from sweep.settings import FINAL_SEEDS, FINALISTS
from vae.arguments import Parser, add_data_arguments, add_results_argument, require_positive, require_seed
from vae.config import FAMILY_NAMES
from vae.errors import UserError
from vae.store import LATEST
from vae.trainer import EPOCH_STEPS, MAX_EPOCHS, MIN_KL

DEFAULT_TRIALS = 50
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """Reads a time such as 90, 90s, 40m, 2h or 1.5d.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if match is None or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"must be a time above 0 such as 90s, 40m or 2h, but got {text!r}")
    return float(match[1]) * _UNITS[match[2] or "s"]


def share(text: str) -> float:
    """Reads a number above 0, 1 at most.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 1.0:
        raise argparse.ArgumentTypeError(f"must be a share above 0 and at most 1, but got {text!r}")
    return value


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments; `given` names those that the command line has."""
    parser = Parser(
        "python -m sweep.run",
        allow_abbrev=False,  # a cluster's head gets all words but `--cluster`
        description="Searches for the best variational autoencoder for some music. Ctrl-C stops it and keeps "
        "everything; --resume NAME goes on.",
    )
    parser.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help=f"trials in all (default: {DEFAULT_TRIALS}; with --time-budget, as many as it leaves time for)",
    )
    parser.add_argument(
        "--time-budget",
        type=seconds,
        metavar="TIME",
        help="time of the search, such as 40m or 2h, without a unit seconds; final runs come after it",
    )
    parser.add_argument(
        "--patience",
        type=share,
        metavar="SHARE",
        help="end early if nothing better comes for this share of --trials or --time-budget, such as 0.3",
    )
    parser.add_argument("--name", help="name of the sweep (default: the data's name and the time)")
    parser.add_argument("--resume", metavar="NAME", help="go on with a sweep; --trials counts earlier ones too")
    parser.add_argument(
        "--warm-start",
        action="append",
        default=[],
        metavar="NAME",
        help="an earlier sweep in --results, whose best configurations are tried first, and whose trials inform "
        "proposals if their values compare; repeatable",
    )
    add_results_argument(parser)
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    add_data_arguments(parser)
    search = parser.add_argument_group("search")
    search.add_argument(
        "--family", action="append", choices=FAMILY_NAMES, help="search this family alone; repeat it to allow several"
    )
    search.add_argument(
        "--max-epochs", type=int, default=MAX_EPOCHS, metavar="N", help=f"top rung (default: {MAX_EPOCHS})"
    )
    search.add_argument(
        "--epoch-steps",
        type=int,
        metavar="N",
        help=f"time steps of training in an epoch (default: {EPOCH_STEPS}; of rows wider than a step of music, fewer)",
    )
    search.add_argument(
        "--min-kl",
        type=float,
        metavar="NATS",
        help=f"least KL of the code in a time step; trials are trained for 1.1 to 2.5 times as much, and ranked by it "
        f"(default: {MIN_KL}; of rows wider than a step of music, more)",
    )
    search.add_argument(
        "--scheduler",
        choices=KINDS,
        default=PROMOTION,
        help="what a trial does at a rung that is not among the best: wait to be promoted, or end "
        f"(default: {PROMOTION})",
    )
    finals = parser.add_argument_group("final runs")
    finals.add_argument(
        "--final-seeds",
        type=int,
        metavar="N",
        help=f"seeds that each of the best {FINALISTS} configurations is trained on after the search, the search's own "
        f"counted; their mean decides, and 1 leaves it to the search (default: {FINAL_SEEDS})",
    )
    finals.add_argument(
        "--final-epochs",
        type=int,
        metavar="N",
        help="epochs of each final run, at least --max-epochs (default: as many)",
    )
    where = parser.add_argument_group("machines")
    where.add_argument(
        "--address",
        help="a Ray cluster, auto or HOST:PORT, or local: this machine (default: the "
        "cluster that it is a node of, or that of ./cluster.yaml if that is filled in, else local)",
    )
    where.add_argument(
        "--cluster", type=Path, metavar="FILE", help="have the cluster run it that `ray up FILE` brought up"
    )
    where.add_argument(
        "--force", action="store_true", help="begin even if the check of the cluster finds something wrong"
    )
    where.add_argument("--watch", metavar="JOB", help="show again what a sweep prints that --cluster was given")
    where.add_argument(
        "--trials-per-gpu", type=int, default=4, metavar="N", help="trials that share a GPU (default: 4)"
    )
    where.add_argument("--max-concurrent", type=int, metavar="N", help="trials at a time (default: all that fit)")
    args = parser.parse_args(argv)
    absent: list[str] = []  # this very list, of what is not given
    parser.set_defaults(**dict.fromkeys(vars(args), absent))
    args.given = {name for name, value in vars(parser.parse_args(argv)).items() if value is not absent}
    return args


_FIXED = (
    "encoding",
    "steps_per_beat",
    "steps_per_bar",
    "family",
    "max_epochs",
    "epoch_steps",
    "min_kl",
    "scheduler",
    "warm_start",
)


def check(args: argparse.Namespace) -> None:
    """Refuses what can't be, before anything is read.

    Raises:
        UserError: says what, and the way out.
    """
    positive = ("trials", "max_epochs", "epoch_steps", "steps_per_beat", "steps_per_bar")
    require_positive(args, *positive, "trials_per_gpu", "max_concurrent", "final_seeds", "final_epochs")
    if args.min_kl is not None and not args.min_kl >= 0:
        raise UserError(f"--min-kl must be at least 0, but got {args.min_kl}.")
    require_seed(args)
    if re.match(r"\w+:/", args.results) and not re.match(r"(s3|gs)://.", args.results):
        raise UserError(f"--results {args.results}: must be a folder, s3://BUCKET/... or gs://BUCKET/...")
    if args.cluster is not None and args.address is not None:
        raise UserError(f"--cluster {args.cluster} is searched on by its own head; leave out --address.")
    if args.name is not None and not (re.fullmatch(r"\w[\w.-]*", args.name) and args.name != LATEST):
        rule = f"hold letters, digits, '.', '_' and '-', begin with one of the first two, and not be {LATEST!r}"
        raise UserError(f"--name must {rule}, but got {args.name!r}.")
    if args.resume is None:
        check_finals(args, args.final_seeds or FINAL_SEEDS, args.max_epochs)
    fixed = sorted(args.given & {*_FIXED, "name", "seed"})
    if args.resume is not None and fixed:
        raise UserError(f"--{fixed[0].replace('_', '-')} is fixed once a sweep has begun; leave it out of --resume.")


def name_of(option: str, given: str, cluster: Path | None) -> str:
    """The name of an earlier sweep, which a shell completes with a slash.

    Args:
        option: that names it.
        given: with it.
        cluster: that has its results elsewhere, or None.

    Raises:
        UserError: it is a path.
    """
    place, slash, name = given.rstrip("/").rpartition("/")
    if slash:
        results = "" if cluster is not None else f"--results {quote(place or slash)} "
        raise UserError(f"{option} {given}: must be a name, not a path; pass {results}{option} {quote(name)}.")
    return name


def check_finals(args: argparse.Namespace, final_seeds: int, max_epochs: int) -> None:
    """Refuses final runs that can't be.

    Raises:
        UserError: says what, and the way out.
    """
    if args.final_epochs is None:
        return
    if args.final_epochs < max_epochs:
        raise UserError(f"--final-epochs must be at least --max-epochs, {max_epochs}, but got {args.final_epochs}.")
    if final_seeds == 1:
        raise UserError("--final-epochs needs final runs, but --final-seeds is 1; pass --final-seeds 2 or more.")

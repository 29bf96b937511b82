"""Command: `python -m sweep.run --trials 200` finds the best VAE for a folder of music."""

import argparse
import logging
import os
import re
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import ray
import torch

from sweep.begun import read_settings
from sweep.callback import Clock, SweepCallback
from sweep.final import finish
from sweep.finals import adopt, train_finals
from sweep.live import LiveView, duration
from sweep.report import Board
from sweep.results import SweepFolder
from sweep.scheduler import KINDS, PROMOTION, Asha, rungs
from sweep.searcher import StudySearcher
from sweep.space import fitting_families
from sweep.stop import Stop
from sweep.study import FINAL_SEEDS, FINALISTS, Settings, Study
from sweep.tuning import Resources, find_resources, run_trials
from sweep.warm_start import require_sweeps, warm_start
from vae.arguments import add_data_arguments, require_positive, require_seed
from vae.bounds import marginal_elbo
from vae.config import FAMILY_NAMES
from vae.corpus import Corpus, load_corpus
from vae.errors import UserError, exit_code
from vae.models.likelihood import moments_of
from vae.train import EPOCH_STEPS, MAX_EPOCHS, MIN_KL

DEFAULT_TRIALS = 50
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning on machines without GPUs
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # their files cost driver time; ours hold the same
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `Stop` has its own, which loses nothing
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the study's journal is what resumes, not Ray's snapshots
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",  # else Ray itself retries these, for ever
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


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


def _start_ray(address: str | None) -> str:
    """Joins a cluster, or starts Ray on this machine; says which."""
    os.environ |= _QUIET
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # crashes are told by the view, in a line each
    address = address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        ray.init(address="local", include_dashboard=False, **quiet)
        return "this machine"
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError) as error:
        raise UserError(
            f"--address {address}: no Ray cluster there ({str(error).splitlines()[0]}); "
            f"start one with `ray start --head`, or leave --address out."
        ) from None
    return f"the Ray cluster at {address}"


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m sweep.run",
        description="Searches for the best variational autoencoder for some music. Ctrl-C stops it and keeps "
        "everything; --resume NAME goes on.",
    )
    parser.add_argument("--trials", type=int, metavar="N", help=f"in all (default: {DEFAULT_TRIALS})")
    parser.add_argument(
        "--time-budget", type=seconds, metavar="TIME", help="of search, such as 40m or 2h; final runs come after it"
    )
    parser.add_argument(
        "--patience",
        type=share,
        metavar="SHARE",
        help="end early if nothing better comes for this share of --trials or --time-budget, such as 0.3",
    )
    parser.add_argument("--name", help="of the sweep (default: the data's name and the time)")
    parser.add_argument("--resume", metavar="NAME", help="go on with a sweep; --trials counts earlier ones too")
    parser.add_argument(
        "--warm-start",
        action="append",
        default=[],
        metavar="NAME",
        help="of an earlier sweep in --results, whose best configurations are tried first, and whose trials inform "
        "proposals if their values compare; repeatable",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder (default: results)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    add_data_arguments(parser)
    search = parser.add_argument_group("search")
    search.add_argument("--family", action="append", choices=FAMILY_NAMES, help="only this one; repeatable")
    search.add_argument(
        "--max-epochs", type=int, default=MAX_EPOCHS, metavar="N", help=f"top rung (default: {MAX_EPOCHS})"
    )
    search.add_argument(
        "--epoch-steps",
        type=int,
        default=EPOCH_STEPS,
        metavar="N",
        help=f"time steps of training in an epoch (default: {EPOCH_STEPS})",
    )
    search.add_argument(
        "--min-kl",
        type=float,
        default=MIN_KL,
        metavar="NATS",
        help=f"that a code must carry a time step (default: {MIN_KL})",
    )
    search.add_argument(
        "--scheduler",
        choices=KINDS,
        default=PROMOTION,
        help="what a trial does at a rung that is not among the best: wait to be promoted, or end (default: promotion)",
    )
    finals = parser.add_argument_group("final runs")
    finals.add_argument(
        "--final-seeds",
        type=int,
        metavar="N",
        help=f"that each of the best {FINALISTS} configurations is trained on after the search, the search's own "
        f"counted; their mean decides, and 1 leaves it to the search (default: {FINAL_SEEDS})",
    )
    finals.add_argument(
        "--final-epochs", type=int, metavar="N", help="of each, not less than --max-epochs (default: as many)"
    )
    where = parser.add_argument_group("machines")
    where.add_argument("--address", help="of a Ray cluster: auto or HOST:PORT (default: this machine)")
    where.add_argument("--trials-per-gpu", type=int, default=4, metavar="N", help="that share one (default: 4)")
    where.add_argument("--max-concurrent", type=int, metavar="N", help="trials at a time (default: all that fit)")
    args = parser.parse_args(argv)
    args.changed = {name for name, value in vars(args).items() if value != parser.get_default(name)}
    return args


_FIXED = (
    "data",
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


def _check(args: argparse.Namespace) -> None:
    positive = ("trials", "max_epochs", "epoch_steps", "steps_per_beat", "steps_per_bar")
    require_positive(args, *positive, "trials_per_gpu", "max_concurrent", "final_seeds", "final_epochs")
    if not args.min_kl >= 0:
        raise UserError(f"--min-kl must be at least 0, but got {args.min_kl}.")
    require_seed(args)
    if "://" in str(args.results) or re.match(r"(s3|gs):", str(args.results)):
        raise UserError(f"--results {args.results}: only folders work so far; pass one that every node can reach.")
    if args.name is not None and not re.fullmatch(r"[\w.-]+", args.name):
        raise UserError(f"--name may hold letters, digits, '.', '_' and '-', but got {args.name!r}.")
    if args.resume is None:
        _check_finals(args, args.final_seeds or FINAL_SEEDS, args.max_epochs)
    fixed = sorted(args.changed & {*_FIXED, "name", "seed"})
    if args.resume is not None and fixed:
        raise UserError(f"--{fixed[0].replace('_', '-')} is fixed once a sweep has begun; leave it out of --resume.")
    require_sweeps(args.results, args.warm_start)


def _new_settings(args: argparse.Namespace, corpus: Corpus) -> Settings:
    stem = re.sub(r"[^\w.-]+", "-", Path(args.data).stem)
    return Settings(
        name=args.name or f"{stem}-{datetime.now().astimezone():%Y%m%d-%H%M%S}",
        data=args.data if args.data == "bach" else str(Path(args.data).resolve()),
        spec=corpus.spec,
        fingerprint=corpus.fingerprint,
        families=tuple(dict.fromkeys(args.family or fitting_families(corpus.spec))),
        max_epochs=args.max_epochs,
        epoch_steps=args.epoch_steps,
        seed=args.seed,
        min_kl=args.min_kl,
        scheduler=args.scheduler,
        final_seeds=args.final_seeds or FINAL_SEEDS,
        final_epochs=args.final_epochs,
        warm_start=tuple(dict.fromkeys(args.warm_start)),
    )


def _check_finals(args: argparse.Namespace, final_seeds: int, max_epochs: int) -> None:
    if args.final_epochs is None:
        return
    if args.final_epochs < max_epochs:
        raise UserError(f"--final-epochs must be at least --max-epochs, {max_epochs}, but got {args.final_epochs}.")
    if final_seeds == 1:
        raise UserError("--final-epochs needs final runs, but --final-seeds is 1; pass --final-seeds 2 or more.")


def _read_settings(args: argparse.Namespace, journal: Path) -> Settings:
    """The settings of a sweep to go on with; its final runs may be others than before."""
    settings = read_settings(journal, args.resume)
    _check_finals(args, args.final_seeds or settings.final_seeds, settings.max_epochs)
    return replace(
        settings,
        final_seeds=args.final_seeds or settings.final_seeds,
        final_epochs=args.final_epochs or settings.final_epochs,
    )


def _prepare(args: argparse.Namespace) -> tuple[Settings, Corpus]:
    """The settings and data of a new sweep, or of one to go on with."""
    if args.resume is None:
        corpus = load_corpus(args.data, args.encoding, args.steps_per_beat, args.steps_per_bar)
        settings = _new_settings(args, corpus)
        if (args.results / settings.name / "study.log").exists():
            raise UserError(
                f"{args.results / settings.name}: a sweep of this name exists; go on with it by "
                f"--resume {settings.name}, or pass another --name."
            )
        return settings, corpus
    journal = SweepFolder(args.results, args.resume).journal
    settings = _read_settings(args, journal)
    spec = settings.spec
    encoding = spec.encoding if spec.is_music else None
    corpus = load_corpus(settings.data, encoding, spec.steps_per_beat, spec.steps_per_bar)
    if corpus.fingerprint != settings.fingerprint:
        raise UserError(f"{settings.data}: has changed since the sweep {settings.name} began; start a new one.")
    return settings, corpus


def _search(
    study: Study,
    corpus: Corpus,
    folder: SweepFolder,
    resources: Resources,
    stop: Stop,
    callback: SweepCallback,
) -> None:
    """Runs Ray Tune until the study has no more trials or `stop` says so."""
    scheduler = Asha(study, stop.asked)
    run_trials(
        corpus,
        study.settings,
        resources,
        folder.trials,
        lambda config: f"{config['number']:05d}-{config['turn']:05d}",
        search_alg=StudySearcher(scheduler, stop.asked, folder.newest_checkpoint),
        scheduler=scheduler,
        stop=stop,
        callbacks=[callback],
        max_failures=0,  # what crashes comes back as `sweep.crash` says, not whatever the error
    )


def _run(args: argparse.Namespace) -> None:
    started = time.time()
    _check(args)
    settings, corpus = _prepare(args)
    learned = warm_start(args.results, settings) if args.resume is None else []
    folder = SweepFolder(args.results, settings.name)
    folder.create()
    where = _start_ray(args.address)
    resources = find_resources(args.trials_per_gpu, args.max_concurrent)
    _say(f"sweep {settings.name} on {where}: {resources.where}", *corpus.report, *(given.report for given in learned))
    earlier = folder.read_summary() if args.resume else {}
    clock = Clock(started, earlier)
    requested = args.trials or earlier.get("trials", {}).get("requested") or DEFAULT_TRIALS
    study = Study(folder.journal, settings, requested, learned)
    stop = Stop(args.time_budget, args.patience, clock, lambda: study.tried / study.requested)
    train, spec = corpus.splits["train"], corpus.spec
    moments = moments_of(train, spec)
    baseline = {
        "marginal_elbo": marginal_elbo(moments, corpus.splits["valid"], spec),
        "marginal_test_elbo": marginal_elbo(moments, corpus.splits["test"], spec),
    }
    _say(f"baseline: {baseline['marginal_elbo']:.3f} nats a step on validation, keys independent, no model")
    board = Board(folder.tensorboard)
    view = LiveView(study, rungs(settings.max_epochs), resources.slots, stop.left)
    callback = SweepCallback(study, folder, view, board, clock, resources.slots, baseline, stop.bettered)
    callback.write()
    if callback.best is not None:
        stop.bettered()  # by an earlier start
    final_stop = Stop(None, None, clock, lambda: 0.0)
    try:
        stop.listen()
        with view:
            _search(study, corpus, folder, resources, stop, callback)
        study.put_off()
        callback.tidy()
        callback.write()
        if settings.final_seeds > 1 and not stop.interrupted:
            final_stop.listen()
            adopt(train_finals(study, folder, corpus, resources, final_stop), callback, settings.min_kl)
    finally:
        ray.shutdown()
    torch.set_num_threads(os.cpu_count() or 1)
    finish(callback, folder, corpus, board, settings.min_kl)
    if stop.impatient:
        _say(f"nothing better in the last {args.patience:.3g} of the budget (--patience)")
    left = _left(study, stop, final_stop)
    if left is not None:
        _say(f"{left}; go on with: python -m sweep.run --resume {settings.name}")
    _say(f"took {duration(time.time() - started)}")


def _left(study: Study, stop: Stop, final_stop: Stop) -> str | None:
    """What `--resume` would go on with, if anything."""
    if final_stop.interrupted:
        return "not all final runs ended"
    if stop.interrupted and study.settings.final_seeds > 1:
        return "not all trials ended, and there were no final runs"
    if stop.interrupted or stop.impatient or study.counts()["paused"]:
        return "not all trials ended"
    return None


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parse(argv)
    return exit_code(lambda: _run(args))


if __name__ == "__main__":
    sys.exit(main())

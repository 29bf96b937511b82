"""Command: `python -m sweep.run --trials 200` finds the best VAE for a folder of music."""

import argparse
import os
import shutil
import signal
import sys
import time
from functools import partial

import ray
import torch
from ray.tune import Callback

from sweep import space
from sweep.arguments import DEFAULT_TRIALS, check, name_of, parse
from sweep.board import Board
from sweep.callback import KEPT_TRIALS, Clock, SweepCallback
from sweep.crash import Standstill
from sweep.earlier import Earlier
from sweep.final import finish, finish_without
from sweep.finals import adopt, train_finals
from sweep.live import LiveView, duration, say
from sweep.nodes import Newcomers, Preflight, require_sound, warnings
from sweep.prepare import default_name, prepare
from sweep.record import folder_of
from sweep.remote import DEFAULT_CLUSTER, is_meant, submit, watch
from sweep.results import SweepFolder, named
from sweep.rungs import rungs
from sweep.scheduler import Asha
from sweep.searcher import StudySearcher
from sweep.settings import Settings
from sweep.stop import Stop
from sweep.study import Study
from sweep.tuning import (
    Resources,
    find_resources,
    joins_cluster,
    known_address,
    may_be_taken_back,
    run_trials,
    start_ray,
)
from sweep.uploads import Uploads
from sweep.warm_start import require_sweeps, warm_start
from vae.bounds import marginal_elbo
from vae.corpus import Corpus, save_corpus
from vae.errors import UserError, exit_code
from vae.models.likelihood import moments_of
from vae.store import LATEST, is_remote, reason

_RESERVE, _CHECKPOINT = 128 * 2**20, 64 * 2**20
"""Bytes that are kept free on the disk of results: for the end of the sweep, and for saving each trial that runs."""
_TIME = " --time-budget 1h"
"""What a sweep that only a time was to end needs to go on with new trials."""


def _search(
    study: Study,
    corpus: Corpus,
    folder: SweepFolder,
    resources: Resources,
    stop: Stop,
    callback: SweepCallback,
    minders: list[Callback],
) -> None:
    """Runs Ray Tune until the study has no more trials or `stop` says so; not if the search was over before."""
    if study.over:
        return
    standstill = Standstill(stop.fail)
    scheduler = Asha(study, stop.asked, standstill, blames=not may_be_taken_back())
    run_trials(
        corpus,
        study.settings,
        resources,
        folder.trials,
        folder_of,
        search_alg=StudySearcher(scheduler, stop.asked, folder.trials.newest, resources.most),
        scheduler=scheduler,
        stop=stop,
        callbacks=[callback, standstill, *minders],
        max_failures=0,  # what crashes comes back as `sweep.crash` says, not whatever the error
    )
    if not stop.interrupted and study.top(1):
        study.end()


def _run(args: argparse.Namespace) -> None:
    started = time.time()
    require_sweeps(args.results, args.warm_start)
    settings, corpus = prepare(args)
    learned = warm_start(args.results, settings) if args.resume is None else []
    folder = SweepFolder(args.results, settings.name)
    folder.create()
    try:
        with folder.driven(), Uploads(folder, say):
            if joins_cluster(args.address) or is_remote(folder.place):
                save_corpus(corpus, folder.data)  # for `--resume` on a machine that lacks them
            _sweep(args, started, settings, corpus, learned, folder)
    except OSError as error:  # of a quota, or a file system of the network
        begun = folder.journal.exists()
        way_out = (
            f"what was written is kept, go on with {folder.again}" if begun else "mend that, or pass another --results"
        )
        raise UserError(f"{folder.path}: {reason(error)}; {way_out}.") from None


def _room(folder: SweepFolder, resources: Resources) -> int:
    """Bytes that results may still take on the driver's disk, beside what it takes to save every trial and stop."""
    checkpoints = 0 if is_remote(folder.place) else resources.slots * _CHECKPOINT
    return shutil.disk_usage(folder.path).free - _RESERVE - checkpoints


def _start(args: argparse.Namespace, folder: SweepFolder) -> tuple[str, Resources, list[Callback]]:
    """Starts Ray, or joins a cluster on which nothing is wrong; where, what there is for trials, and who minds it.

    Raises:
        UserError: something is wrong.
    """
    where = start_ray(args.address)
    joined = joins_cluster(args.address)
    if joined:
        say(f"joining {where}; --address local searches on this machine alone")
    minders: list[Callback] = []
    try:
        resources = find_resources(args.trials_per_gpu, args.max_concurrent, joined, say)
        if joined:
            preflight = Preflight(folder.place)
            require_sound(preflight.problems(), warnings(), args.force, say)
            minders.append(Newcomers(preflight, map(str.upper, resources.per_trial), say))
        if _room(folder, resources) <= 0:
            raise UserError(f"{folder.path}: the disk is nearly full; make room, or pass another --results.")
    except UserError:
        ray.shutdown()
        raise
    return where, resources, minders


def _sweep(
    args: argparse.Namespace,
    started: float,
    settings: Settings,
    corpus: Corpus,
    learned: list[Earlier],
    folder: SweepFolder,
) -> None:
    where, resources, minders = _start(args, folder)
    say(f"sweep {settings.name} on {where}: {resources}", *corpus.report, *(given.report for given in learned))
    say(f"families: {', '.join(settings.families)}{_without_metre(settings)}")
    earlier = folder.read_summary() if args.resume else {}
    clock = Clock(started, earlier)
    room = partial(_room, folder, resources)
    train, spec = corpus.splits["train"], corpus.spec
    moments = moments_of(train, spec)
    baseline = {
        "marginal_elbo": marginal_elbo(moments, corpus.splits["valid"], spec),
        "marginal_test_elbo": marginal_elbo(moments, corpus.splits["test"], spec),
    }
    say(f"baseline: {baseline['marginal_elbo']:.3f} nats a step on validation, keys independent, no model")
    study = _opened(args, settings, folder, learned)
    folder.make_latest()
    stop = Stop(args.time_budget, args.patience, clock, lambda: study.share_tried, lambda: study.best_trains_on, room)
    board = Board(folder.tensorboard)
    view = LiveView(study, rungs(settings.max_epochs), resources.slots, stop.left)
    callback = SweepCallback(study, folder, view, board, clock, lambda: resources.peak, baseline, stop.bettered)
    if args.resume is not None:
        callback.catch_up()
        study.miss(folder.trials.trained, KEPT_TRIALS)
    callback.write()
    if callback.best is not None:
        stop.bettered()  # by an earlier start
    final_stop, cut_short = Stop(None, None, clock, lambda: 0.0, room=room), False
    try:
        stop.listen()
        with view:
            _search(study, corpus, folder, resources, stop, callback, minders)
        study.put_off()
        callback.catch_up()
        callback.update()
        if settings.final_seeds > 1 and not stop.interrupted:
            final_stop.listen()
            runs = train_finals(study, folder, corpus, resources, final_stop, minders, callback.winner, callback.follow)
            cut_short = not adopt(runs, callback, settings.min_kl) and final_stop.interrupted
    finally:
        ray.shutdown()
        for number in (signal.SIGINT, signal.SIGTERM):  # from here on either ends the command
            signal.signal(number, signal.default_int_handler)
    torch.set_num_threads(os.cpu_count() or 1)
    if callback.best is not None:
        finish(callback, folder, corpus, board, settings)
    else:
        finish_without(callback, folder, study, board, stop)
    if stop.impatient:
        say(f"nothing better in the last {args.patience:.3g} of the budget (--patience)")
    if failure := stop.failure or final_stop.failure:
        again = f"{folder.again}{_TIME if study.most is None else ''}"
        raise UserError(f"{folder.path}: {failure}, then go on with {again}.")
    _tell_left(study, stop, cut_short, folder)
    say(f"took {duration(time.time() - started)}")


def _without_metre(settings: Settings) -> str:
    """What keeps a family from being searched, to be said after those that are."""
    spec = settings.spec
    left_out = spec.is_music and spec.steps_per_bar is None and settings.families == space.fitting_families(spec)
    return "; hierarchical needs a metre: --steps-per-bar" if left_out else ""


def _opened(args: argparse.Namespace, settings: Settings, folder: SweepFolder, learned: list[Earlier]) -> Study:
    """The study, whose search goes on, unless it was over and nobody asks for more."""
    study = Study(folder.journal, settings, None, learned)
    begun = len(study.records)
    if study.over and args.trials is None and args.time_budget is None:
        study.most = study.asked_for
        say(f"the search is over: for more of it pass --trials above {begun}, or --time-budget")
        return study
    study.go_on(most_trials(args, study.asked_for, begun))
    if args.trials is None and begun == study.most:
        say(f"no new trials, only what was begun: for more pass --trials above {begun}, or --time-budget")
    return study


def most_trials(args: argparse.Namespace, asked_for: int | None, begun: int) -> int | None:
    """How many the sweep is to have; None: a time ends it.

    Args:
        args: the command line.
        asked_for: by an earlier start of the sweep; None if a time was to end it, or there was none.
        begun: by earlier starts.
    """
    if args.trials is not None:
        return int(args.trials)
    if args.time_budget is not None and (asked_for or 0) <= begun:
        return None
    return asked_for or begun or DEFAULT_TRIALS


def _tell_left(study: Study, stop: Stop, cut_short: bool, folder: SweepFolder) -> None:
    """Says what `--resume` would go on with, if anything."""
    again, counts = f"python -m sweep.run {folder.again}", study.counts()
    if cut_short:
        say(f"not all final runs ended; go on with: {again}")
    elif stop.interrupted:
        finals = ", and there were no final runs" if study.settings.final_seeds > 1 else ""
        say(f"not all trials ended{finals}; go on with: {again}{_TIME if study.most is None else ''}")
    elif stop.impatient or counts["paused"] or counts["pending"] or study.most is None:
        say(f"to search on: {again}{_TIME}")


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    args = parse(words)
    return exit_code(lambda: _run_somewhere(args, words))


def _run_somewhere(args: argparse.Namespace, words: list[str]) -> None:
    """On the cluster of a file that is filled in, which tells what is wrong with the command; or here."""
    check(args)
    if args.cluster is None and known_address(args.address) is None and is_meant(DEFAULT_CLUSTER):
        args.cluster = DEFAULT_CLUSTER
    args.resume = name_of("--resume", args.resume, args.cluster) if args.resume is not None else None
    args.warm_start = [name_of("--warm-start", name, args.cluster) for name in args.warm_start]
    if args.cluster is None and args.watch is not None:
        raise UserError("--watch needs the cluster that the job was submitted to: pass --cluster FILE.")
    if args.cluster is None:
        args.resume = named(args.results, args.resume) if args.resume is not None else None
        args.warm_start = [named(args.results, name) for name in args.warm_start]
        _run(args)
        return
    if LATEST in (args.resume, *args.warm_start):  # its links are there, and not here
        raise UserError(
            f"--cluster {args.cluster}: give the sweep's own name, for {LATEST} is another there than here."
        )
    if args.watch is not None:
        watch(args)
        return
    submit(words, args, args.resume or args.name or default_name(args.data))


if __name__ == "__main__":
    sys.exit(main())

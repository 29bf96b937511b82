"""Command: `python -m sweep.run --trials 200` finds the best VAE for a folder of music."""

import argparse
import os
import re
import shutil
import sys
import time
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import ray
import torch

from sweep import nodes
from sweep.arguments import DEFAULT_TRIALS, check, check_finals, parse
from sweep.begun import read_settings
from sweep.board import Board
from sweep.callback import Clock, SweepCallback
from sweep.earlier import Earlier
from sweep.final import finish
from sweep.finals import adopt, train_finals
from sweep.live import LiveView, duration
from sweep.remote import DEFAULT_CLUSTER, is_up, submit, watch
from sweep.results import SweepFolder
from sweep.scheduler import Asha, rungs
from sweep.searcher import StudySearcher
from sweep.space import fitting_families
from sweep.stop import Stop
from sweep.study import FINAL_SEEDS, Settings, Study
from sweep.tuning import LOCAL, Resources, find_resources, known_address, run_trials, start_ray
from sweep.uploads import Uploads, fetch
from sweep.warm_start import warm_start
from vae.bounds import marginal_elbo
from vae.corpus import Corpus, load_corpus
from vae.errors import UserError, exit_code
from vae.models.likelihood import moments_of

_RESERVE, _CHECKPOINT = 128 * 2**20, 64 * 2**20


def _default_name(data: str) -> str:
    stem = re.sub(r"[^\w.-]+", "-", Path(data).stem)
    return f"{stem}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"


def _new_settings(args: argparse.Namespace, corpus: Corpus) -> Settings:
    return Settings(
        name=args.name or _default_name(args.data),
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


def _read_settings(args: argparse.Namespace, journal: Path) -> Settings:
    """The settings of a sweep to go on with; its final runs may be others than before."""
    settings = read_settings(journal, args.resume)
    check_finals(args, args.final_seeds or settings.final_seeds, settings.max_epochs)
    return replace(
        settings,
        final_seeds=args.final_seeds or settings.final_seeds,
        final_epochs=args.final_epochs or settings.final_epochs,
    )


def _fetched(results: str, name: str) -> Path:
    """The journal of a sweep, brought here if it is in an object store; absent if there is no such sweep."""
    folder = SweepFolder(results, name)
    fetch(folder)
    return folder.journal


def _prepare(args: argparse.Namespace) -> tuple[Settings, Corpus]:
    """The settings and data of a new sweep, or of one to go on with."""
    if args.resume is None:
        corpus = load_corpus(args.data, args.encoding, args.steps_per_beat, args.steps_per_bar)
        settings = _new_settings(args, corpus)
        if _fetched(args.results, settings.name).exists():
            raise UserError(
                f"{args.results}/{settings.name}: a sweep of this name exists; go on with it by "
                f"--resume {settings.name}, or pass another --name."
            )
        return settings, corpus
    settings = _read_settings(args, _fetched(args.results, args.resume))
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
        lambda config: f"{config['number']:05d}-{config['turn']:05d}",  # see `TrialRecord.prefix`
        search_alg=StudySearcher(scheduler, stop.asked, folder.trials.newest),
        scheduler=scheduler,
        stop=stop,
        callbacks=[callback],
        max_failures=0,  # what crashes comes back as `sweep.crash` says, not whatever the error
    )


def _run(args: argparse.Namespace) -> None:
    started = time.time()
    check(args)
    settings, corpus = _prepare(args)
    learned = warm_start(args.results, settings) if args.resume is None else []
    folder = SweepFolder(args.results, settings.name)
    folder.create()
    with Uploads(folder, _say):
        _sweep(args, started, settings, corpus, learned, folder)


def _room(folder: SweepFolder, slots: int) -> int:
    """Bytes that results may still take on the driver's disk, beside what it takes to save every trial and stop."""
    return shutil.disk_usage(folder.path).free - _RESERVE - slots * _CHECKPOINT


def _preflight(folder: SweepFolder, force: bool) -> None:
    """Refuses a cluster on which the sweep would fail; the doctor tells the same."""
    problems = nodes.problems(folder.place)
    for line in (*nodes.warnings(), *(problems if force else ())):
        _say(f"warning: {line}")
    if problems and not force:
        ray.shutdown()
        more = f" (and {len(problems) - 1} more: python -m sweep.doctor)" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]}{more} --force begins all the same.")


def _sweep(
    args: argparse.Namespace,
    started: float,
    settings: Settings,
    corpus: Corpus,
    learned: list[Earlier],
    folder: SweepFolder,
) -> None:
    where = start_ray(args.address)
    if known_address(args.address) not in (None, LOCAL):
        _preflight(folder, args.force)
    resources = find_resources(args.trials_per_gpu, args.max_concurrent, _say)
    _say(f"sweep {settings.name} on {where}: {resources.where}", *corpus.report, *(given.report for given in learned))
    earlier = folder.read_summary() if args.resume else {}
    clock = Clock(started, earlier)
    requested = args.trials or earlier.get("trials", {}).get("requested") or DEFAULT_TRIALS
    study = Study(folder.journal, settings, requested, learned)
    room = partial(_room, folder, resources.slots)
    stop = Stop(args.time_budget, args.patience, clock, lambda: study.tried / study.requested, room)
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
    final_stop = Stop(None, None, clock, lambda: 0.0, room)
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
    if stop.full or final_stop.full:
        raise UserError(
            f"{folder.path}: the disk is nearly full, so the sweep has stopped; make room, then go on with "
            f"--resume {settings.name}."
        )
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
    words = sys.argv[1:] if argv is None else argv
    args = parse(words)
    if args.cluster is None and known_address(args.address) is None and is_up(DEFAULT_CLUSTER):
        args.cluster = DEFAULT_CLUSTER
    if args.cluster is not None:
        return exit_code(lambda: _run_there(args, words))
    return exit_code(lambda: _run(args))


def _run_there(args: argparse.Namespace, words: list[str]) -> None:
    """Has a cluster run the command; what is wrong with it is told from there."""
    if args.watch is not None:
        watch(args.cluster, args.watch)
        return
    name = args.resume or args.name or _default_name(args.data)
    named = [] if args.resume or args.name else ["--name", name]
    submit(args.cluster, [*_without(words, "--cluster"), *named], args, name)


def _without(words: list[str], option: str) -> list[str]:
    """Words of a command line without an option and its value."""
    if option not in words:
        return [word for word in words if not word.startswith(f"{option}=")]
    at = words.index(option)
    return [*words[:at], *words[at + 2 :]]


if __name__ == "__main__":
    sys.exit(main())

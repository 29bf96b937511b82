"""The end of a sweep: the winner is scored on test, once, and played."""

import math
import sys
from shlex import quote
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sweep.board import Board
from sweep.callback import SweepCallback
from sweep.live import say
from sweep.results import SweepFolder
from sweep.settings import FINAL_SEEDS, Settings
from sweep.stop import Stop
from sweep.study import Study
from vae import checkpoint, rendering, statistics
from vae.bounds import TEST_SEED, evaluate, importance_weighted_bound
from vae.corpus import Corpus
from vae.encoding import DataSpec
from vae.errors import UserError
from vae.models.base import Vae
from vae.pieces import draw
from vae.sheet import as_image
from vae.windows import Songs

IWAE_SAMPLES = 16
_LONGER = 3  # times the epochs, where the winner still got better
_PIECES = 64  # whose statistics stand in the summary
_HEARD, _HEARD_SECONDS = 4, 60.0
"""Pieces as audio in TensorBoard, and of each how much: long songs make pieces of an hour, a gibibyte of sound."""


def finish(callback: SweepCallback, folder: SweepFolder, corpus: Corpus, board: Board, settings: Settings) -> None:
    """Scores the winner on test, writes the summary, and adds samples to TensorBoard."""
    assert callback.best is not None
    say(f"scoring the winner on test, and drawing {_PIECES} pieces from it")
    model = checkpoint.load(folder.best).model
    callback.best |= _test(model, corpus)
    pieces = draw(model, _PIECES, 1.0, 0)
    summary = callback.write(samples=statistics.summarise(pieces, corpus))
    board.samples(as_image(pieces, corpus.spec), heard(pieces, corpus.spec), rendering.AUDIO_RATE)
    board.close()
    _tell(summary, folder, settings.min_kl)
    _tell_longer(callback.best["epoch"], callback.epochs_of_best(), folder, settings)


def finish_without(callback: SweepCallback, folder: SweepFolder, study: Study, board: Board, stop: Stop) -> None:
    """As `finish`, of a sweep that has no winner.

    Raises:
        UserError: nobody stopped it; says why there is none.
    """
    callback.write()
    failed = any(record.crashes or record.state == "failed" for record in study.records.values())
    board.close()
    if stop.interrupted:
        return
    if stop.left() == 0.0 and not failed:
        raise UserError(
            f"{folder.path}: the time budget was shorter than an epoch; go on with {folder.again} and a longer "
            "--time-budget."
        )
    raise UserError(
        f"{folder.path}: no trial finished an epoch; the lines above say why. Once that is mended, go on with "
        f"{folder.again} and more --trials, or another --time-budget."
    )


def heard(pieces: npt.NDArray[Any], spec: DataSpec) -> list[npt.NDArray[np.float32]]:
    """How the first pieces, [n, T, D], begin, as sound; none where they are no music."""
    if not spec.is_music:
        return []
    steps = math.ceil(_HEARD_SECONDS * spec.tempo / 60.0 * spec.steps_per_beat)
    return [rendering.synthesise(piece[:steps], spec) for piece in pieces[:_HEARD]]


def _test(model: Vae, corpus: Corpus) -> dict[str, Any]:
    songs = Songs(corpus.splits["test"], torch.device("cpu"))
    values = evaluate(model, songs, TEST_SEED)
    return {
        "test_elbo": values["elbo"],
        "test_elbo_per_song": values["elbo_per_song"],
        "test_kl": values["kl"],
        "test_iwae": importance_weighted_bound(model, songs, TEST_SEED, IWAE_SAMPLES),
        "iwae_samples": IWAE_SAMPLES,
    }


def _spread(seeds: list[dict[str, Any]] | None) -> str:
    """How far apart the seeds of the winner are, if it was trained on several."""
    if seeds is None:
        return ""
    elbos = [seed["val_elbo"] for seed in seeds]
    return f"{len(elbos)} seeds: {min(elbos):.3f} to {max(elbos):.3f}; "


def _tell(summary: dict[str, Any], folder: SweepFolder, min_kl: float) -> None:
    best, baseline = summary["best"], summary["baseline"]
    spread = _spread(best["seeds"])
    states = ", ".join(f"{count} {state}" for state, count in summary["trials"].items() if count)
    sys.stdout.write(
        f"trials: {states}; {summary['epochs_trained']} epochs\n"
        f"best: trial {best['trial']} ({best['params']['family']}) at epoch {best['epoch']:.0f}, nats a step: "
        f"val_elbo {best['val_elbo']:.3f} ({spread}baseline {baseline['marginal_elbo']:.3f}), kl {best['kl']:.3f}, "
        f"code_gain {best['code_gain']:.3f}, "
        f"test_elbo {best['test_elbo']:.3f} (baseline {baseline['marginal_test_elbo']:.3f})\n"
    )
    if best["val_elbo"] < baseline["marginal_elbo"]:
        sys.stderr.write("warning: it foretells less than the baseline does. Search longer, or give it more music.\n")
    if not best["feasible"]:
        sys.stderr.write(
            f"warning: no trial has a code that says enough (kl >= {min_kl:g} and code_gain >= {min_kl / 2:g} nats a "
            "step); this is the best ranked. Search longer or lower --min-kl.\n"
        )
    sys.stdout.write(
        f"play it: python -m vae.sample --best --results {quote(folder.place)}\n"
        f"look at it: tensorboard --logdir {quote(str(folder.tensorboard))}\n"
        f"understand it: python -m sweep.report {quote(folder.name)} --results {quote(folder.place)}\n"
    )


def _tell_longer(best: int, trained: int, folder: SweepFolder, settings: Settings) -> None:
    """How to train the winner longer, if that promises something."""
    seeds = "" if settings.final_seeds > 1 else f" --final-seeds {FINAL_SEEDS}"
    again = f"python -m sweep.run {folder.again}{seeds}"
    if best >= settings.last_epoch:
        sys.stdout.write(
            "it was still getting better at its last epoch; to train the best longer: "
            f"{again} --final-epochs {_LONGER * settings.last_epoch}\n"
        )
    elif seeds and 0 < trained < settings.max_epochs:
        sys.stdout.write(
            f"its trial came to epoch {trained} of {settings.max_epochs}; to train the best to it: {again}\n"
        )

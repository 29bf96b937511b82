"""The Ray Tune trainable around `vae.trainer`: a warm actor that trains one trial after another."""

import os
import socket
import time
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from sweep.crash import GPU_ERRORS, SetupError
from sweep.record import Report
from sweep.rungs import rungs, validates
from sweep.settings import Settings
from vae.config import Config
from vae.corpus import Corpus
from vae.device import default_device, lacks_memory, release_gpu
from vae.errors import OtherRunError, UserError
from vae.store import StoreError, fetched, reason
from vae.trainer import DivergedError, Trainer, TrainingData, failure_of

REPORT_SECONDS = 1.0
"""Epochs shorter than this are reported together, but never past a rung: it keeps the driver out of the way."""
_SETUP_SECONDS, _PAUSE_SECONDS = 60.0, 5.0
"""For which a worker tries to get ready, such as where others have taken a GPU's memory; and between tries."""
_MADE_UP = "SWEEP_MADE_UP_GPUS"
"""Environment variable of a node whose GPUs are made up, as those of the tests are: its trials train on processors."""


def _loaded(corpus: Corpus) -> TrainingData:
    """Tries for a while: a GPU that has failed would be free at once, and take one trial after another."""
    began = time.monotonic()
    while True:
        try:
            device = default_device()
            if device.type == "cpu":
                _require_no_gpu()
                torch.set_num_threads(1)  # there are as many trials as cores
            return TrainingData.load(corpus, device)
        except Exception as error:
            if time.monotonic() - began > _SETUP_SECONDS:
                raise SetupError(f"{socket.gethostname()}: {type(error).__name__}: {error}") from error
        time.sleep(_PAUSE_SECONDS)


def _require_no_gpu() -> None:
    """Refuses to train on processors what holds a share of a cluster's GPU, which may cost by the hour."""
    if ray.is_initialized() and _MADE_UP not in os.environ and ray.get_gpu_ids():
        raise RuntimeError(
            "the trial has a share of a GPU, but torch sees none; `nvidia-smi` there shows whether it is lost, or its "
            "driver older than 580, which docs/cluster.md asks for: update it, or start the machine anew."
        )


class VaeTrial(tune.Trainable):  # type: ignore[misc]  # ray ships incomplete types
    """Trains from rung to rung."""

    def setup(self, config: dict[str, Any], corpus: Corpus, settings: Settings) -> None:
        """Loads the data once for all trials of this actor."""
        self._data = _loaded(corpus)
        self._settings = settings
        self._rungs = rungs(settings.max_epochs)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Starts another trial in this warm actor."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._failure: str | None = None
        self._trainer: Trainer | None = None
        release_gpu()  # of the trial before
        self._unreported = False  # a rung that the checkpoint has been to
        try:
            model_config = Config.for_data(self._data.corpus.spec, config["params"])
            self._trainer = Trainer(
                model_config,
                self._data,
                config["seed"],
                self._settings.epoch_steps,
                self._settings.min_kl,
            )
        except Exception as error:  # the data are there, so it is the configuration's, unless the GPU's
            if str(error).startswith(GPU_ERRORS):
                raise
            why = str(error).partition("\n")[0]
            known = isinstance(error, UserError) or lacks_memory(error)
            self._failure = why if known else f"{type(error).__name__}: {why}"
            return
        if config["checkpoint"] is not None:
            self._restore(self._trainer, config["checkpoint"])
            known, trained = config["epoch"], self._trainer.epoch
            self._unreported = any(known < rung <= trained for rung in self._rungs)

    @staticmethod
    def _restore(trainer: Trainer, place: str) -> None:
        """From a checkpoint, which the driver has seen: if it is not there, this node does not see the place."""
        try:
            with fetched(place) as path:
                trainer.restore(path)
        except OtherRunError:
            raise
        except UserError as error:
            raise StoreError(str(error)) from error
        except OSError as error:  # such as of a disk that is full
            raise StoreError(f"{place}: {reason(error)}") from error

    def step(self) -> dict[str, Any]:
        """Trains to the next rung, or for `REPORT_SECONDS`, and reports."""
        curve: list[dict[str, float]] = []
        if self._trainer is not None:
            try:
                self._train(self._trainer, curve)
            except (DivergedError, RuntimeError) as error:
                self._failure = failure_of(error)
        return {"report": self._report(curve)}

    def _train(self, trainer: Trainer, curve: list[dict[str, float]]) -> None:
        if self._unreported:  # what the driver knew was lost with its machine
            self._unreported = False
            curve.append(trainer.scored())
            return
        started = time.perf_counter()
        while trainer.epoch < self._rungs[-1]:
            curve.append(trainer.train_epoch(validate=validates(trainer.epoch + 1, self._rungs)))
            if trainer.epoch in self._rungs or time.perf_counter() - started > REPORT_SECONDS:
                return

    def _report(self, curve: list[dict[str, float]]) -> Report:
        trainer, node = self._trainer, socket.gethostname()
        if trainer is None:
            return Report(0, [], {}, 0.0, node, self._failure)
        best = trainer.best.metrics if trainer.best else {}
        return Report(trainer.epoch, curve, best, trainer.train_seconds, node, self._failure)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Writes the trainer's checkpoint, from which the trial's next turn begins; Ray itself restores none."""
        assert self._trainer is not None
        self._trainer.save(Path(checkpoint_dir))

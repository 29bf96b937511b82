"""TensorBoard: every trial's curves and hyperparameters, the sweep's best so far, the winner's samples."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from sweep.record import Report, TrialRecord

_TAGS = {
    "val_elbo": "validation/elbo",
    "val_log_likelihood": "validation/log_likelihood",
    "kl": "validation/kl",
    "code_gain": "validation/code_gain",
    "active_units": "validation/active_units",
    "train_elbo": "train/elbo",
    "train_log_likelihood": "train/log_likelihood",
    "train_kl": "train/kl",
    "beta": "schedule/beta",
    "learning_rate": "schedule/learning_rate",
    "examples_per_second": "speed/examples_per_second",
}
_HPARAM_METRICS = ("validation/elbo", "validation/kl", "validation/code_gain", "train/elbo")


class Board:
    """Event files under `tensorboard/`: a run for each trial, one for the sweep. Only live trials hold files open."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._trials: dict[int, SummaryWriter] = {}
        self._sweep = SummaryWriter(str(directory / "sweep"))

    def begin(self, record: TrialRecord) -> None:
        """A trial starts: its hyperparameters appear at once."""
        if record.number in self._trials:
            return
        writer = SummaryWriter(str(self._directory / f"{record.number:05d}"), flush_secs=5)
        experiment, start, self._end = hparams(record.params, dict.fromkeys(_HPARAM_METRICS, 0.0))  # type: ignore[no-untyped-call]
        self._add_summaries(writer, experiment, start)
        self._trials[record.number] = writer

    def add(self, record: TrialRecord, report: Report) -> None:
        """Adds the epochs of a report to a trial's curves."""
        writer = self._trials[record.number]
        for metrics in report.curve:
            for name in metrics.keys() & _TAGS.keys():
                writer.add_scalar(_TAGS[name], metrics[name], int(metrics["epoch"]))

    def end(self, record: TrialRecord) -> None:
        """A trial ended, in whatever way; its files are closed."""
        writer = self._trials.pop(record.number, None)
        if writer is not None:
            writer.add_text("end", record.failure or record.state, record.epoch)
            self._add_summaries(writer, self._end)
            writer.close()

    @staticmethod
    def _add_summaries(writer: SummaryWriter, *summaries: Any) -> None:
        # `SummaryWriter.add_hparams` would open a run of its own, and only once the trial is over.
        files = writer._get_file_writer()  # type: ignore[no-untyped-call]
        for summary in summaries:
            files.add_summary(summary)
        writer.flush()

    def best_so_far(self, elbo: float, trials_ended: int) -> None:
        """Adds a point to the sweep's curve."""
        self._sweep.add_scalar("sweep/best_val_elbo", elbo, trials_ended, walltime=time.time())

    def samples(self, sheet: npt.NDArray[np.uint8], audio: list[npt.NDArray[np.float32]], rate: int) -> None:
        """Adds the winner's samples: a sheet of piano rolls [H, W, 3], and audio at a rate in Hz."""
        self._sweep.add_image("samples", sheet, dataformats="HWC")
        for index, wave in enumerate(audio):
            self._sweep.add_audio(f"samples/{index:03d}", wave[None], sample_rate=rate)

    def close(self) -> None:
        """Closes every file."""
        for writer in (*self._trials.values(), self._sweep):
            writer.close()

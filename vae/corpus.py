"""Named corpora and user files, read into songs split by tune."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vae.encoding import DataSpec

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Split:
    """Songs laid end to end."""

    values: npt.NDArray[np.uint8] | npt.NDArray[np.float32]  # [steps, D]; uint8 of 0 and 1, or float32 if real
    lengths: npt.NDArray[np.int64]  # [songs], steps of each; they sum to len(values)


@dataclass(frozen=True)
class Corpus:
    """Encoded music, split: what trainers and sweeps take."""

    name: str
    spec: DataSpec
    splits: dict[str, Split]  # by `SPLITS`
    report: tuple[str, ...]  # what reading found, a line each: files, songs, notes, steps, skipped and why
    fingerprint: str  # SHA-256 (hex) of the spec and the arrays of all splits

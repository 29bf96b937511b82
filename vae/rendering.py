"""Pieces as a listener gets them: MIDI files, a picture, sound."""

import io
import math
import re
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vae.canvas import MAKER
from vae.encoding import DataSpec, decode
from vae.errors import UserError
from vae.files import write_atomically

FOLDERS = ("samples", "reconstruction", "variations", "interpolation")
"""Of pieces that nothing steers, and of those that songs do, in the folder of a sweep or a checkpoint."""
SHEET, ARRAY = "samples.png", "samples.npy"
_NUMBERED = re.compile(r"\d{3,}\.(mid|wav)")
AUDIO_RATE = 22_050
"""Samples of sound a second."""
_STRETCH = 60.0
"""Seconds of sound that are made at once."""


def write(
    samples: npt.NDArray[Any],
    spec: DataSpec,
    directory: Path,
    name: str,
    labels: Mapping[int, str] | None = None,
    sound: bool = False,
) -> list[str]:
    """Writes samples into a folder: music as `000.mid` ..., else `samples.npy`; and a picture.

    Numbered files that an earlier call left there, and that this one does not write, are removed.

    Args:
        samples: [n, T, D], as `draw` gives them.
        spec: the data.
        directory: where.
        name: titles the pieces, such as the name of the sweep.
        labels: names of samples that are no pieces of the model's, by their number.
        sound: also as `000.wav` ...; for music.

    Returns:
        The names of the files, the picture last; those of sound left out.

    Raises:
        UserError: the folder can't be written, or holds files of these names that are no samples.
    """
    from vae.sheet import piano_roll_sheet

    try:
        directory.mkdir(parents=True, exist_ok=True)
        ours = _has_sheet(directory)  # else numbered files there are the user's own
        if not ours:
            _require_free(directory)
        titles = [(labels or {}).get(number, f"{name} {number:03d}") for number in range(len(samples))]
        # First: numbered files without a sheet, left where the rest fails, would pass for the user's own.
        piano_roll_sheet(samples, spec, directory / SHEET, name, labels)
        names = [*(_write_midi if spec.is_music else _write_array)(samples, spec, directory, titles), SHEET]
        if ours:
            _discard_earlier(directory, names, sound)
        if sound:
            for piece, file in zip(samples, names, strict=False):
                _write_wav(synthesise(piece, spec), (directory / file).with_suffix(".wav"))
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror}); pass another --out.") from None
    return names


def _has_sheet(directory: Path) -> bool:
    """Whether an earlier call has written there."""
    try:
        return MAKER.encode() in (directory / SHEET).read_bytes()
    except FileNotFoundError:
        return False


def _require_free(directory: Path) -> None:
    """Refuses a folder with files that this call, or a later one, would take for an earlier one's."""
    for name in sorted(path.name for path in directory.iterdir()):
        if _NUMBERED.fullmatch(name) or name in (SHEET, ARRAY):
            raise UserError(
                f"{directory / name}: would be lost, and has no {SHEET} of this program beside it; remove it, or pass "
                "another --out."
            )


def _write_midi(samples: npt.NDArray[Any], spec: DataSpec, directory: Path, titles: list[str]) -> list[str]:
    from vae.midi import write_midi

    names = []
    for number, (sample, title) in enumerate(zip(samples, titles, strict=True)):
        names.append(f"{number:03d}.mid")
        write_midi(
            decode(sample, spec.encoding),
            directory / names[-1],
            spec.tempo,
            spec.steps_per_beat,
            title,
            steps_per_bar=spec.steps_per_bar,
            beat_type=spec.beat_type,
        )
    return names


def _write_array(samples: npt.NDArray[Any], spec: DataSpec, directory: Path, titles: list[str]) -> list[str]:
    del spec, titles
    buffer = io.BytesIO()
    np.save(buffer, as_array(samples))
    write_atomically(directory / ARRAY, buffer.getvalue())
    return [ARRAY]


def as_array(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[n, D] for rows, [n, T, D] for longer pieces: the shape that the user's own array has."""
    return samples[:, 0] if samples.shape[1] == 1 else samples


def _discard_earlier(directory: Path, names: list[str], sound: bool) -> None:
    """Removes the numbered files of an earlier, larger run, and all that sound of other pieces."""
    for path in directory.iterdir():
        ours = _NUMBERED.fullmatch(path.name)
        written = path.with_suffix(".mid").name in names and (sound or path.suffix == ".mid")
        if ours and not written:
            path.unlink()


def _write_wav(sound: npt.NDArray[np.float32], path: Path) -> None:
    """Mono sound, -1 to 1, as 16-bit WAV."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(AUDIO_RATE)
        file.writeframes((sound * 32767.0).astype("<i2").tobytes())
    write_atomically(path, buffer.getvalue())


def synthesise(sample: npt.NDArray[Any], spec: DataSpec, rate: int = AUDIO_RATE) -> npt.NDArray[np.float32]:
    """Plays one piece of music, [T, D], with sine waves.

    Returns:
        Mono sound between -1 and 1, `rate` numbers a second; silence lasts as long as the piece.
    """
    from vae.midi import to_pretty_midi

    notes, step = decode(sample, spec.encoding), 60.0 / (spec.tempo * spec.steps_per_beat)
    if not len(notes):
        return np.zeros(math.ceil(len(sample) * step * rate), np.float32)
    sound = np.zeros(int(rate * (notes[:, 2].max() * step + 1.0)), np.float32)
    stretch = max(1, round(_STRETCH / step))
    for first in range(0, int(notes[:, 1].max()) + 1, stretch):  # pretty_midi takes eight times what it makes
        part = notes[(notes[:, 1] >= first) & (notes[:, 1] < first + stretch)]
        part[:, 1:] -= first
        (player,) = to_pretty_midi(part, spec.tempo, spec.steps_per_beat, "sample").instruments
        at = int(rate * first * step)
        played = player.synthesize(fs=rate)[: len(sound) - at]
        sound[at : at + len(played)] += played
    return np.asarray(sound / np.abs(sound).max(), np.float32)

"""New pieces from a checkpoint: drawn, written, played.

Command: `python -m vae.sample --best -n 16` writes MIDI files and one picture of them.
"""

import argparse
import io
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vae import checkpoint
from vae.arguments import add_checkpoint_arguments, chosen_directory
from vae.encoding import DataSpec, decode
from vae.errors import UserError, exit_code
from vae.files import write_atomically
from vae.models.base import Vae
from vae.statistics import measure
from vae.store import is_remote
from vae.windows import Batch

SHEET, ARRAY = "samples.png", "samples.npy"
AUDIO_RATE = 22_050
"""Samples of sound a second."""

_BLOCK = 16
"""Pieces decoded at once, always; each block has random numbers of its own.

So piece 3 of a seed is the same, to the bit, however many are asked for.
"""


@torch.no_grad()
def draw(
    model: Vae, spec: DataSpec, n: int, temperature: float, seed: int
) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    """Draws pieces: codes from the prior, then x ~ p(x|z), window after window.

    Args:
        model: on any device; random numbers are drawn on the CPU.
        spec: the data it was trained on.
        n: pieces, at least 1.
        temperature: divides the logits of the output; codes are drawn at 1.
        seed: at least 0; with the same model, the same pieces.

    Returns:
        [n, T, D], uint8 of 0 and 1; for real data the decoder's means, float32.
    """
    training = model.training
    model.eval()
    blocks = [_draw_block(model, temperature, seed, block) for block in range(math.ceil(n / _BLOCK))]
    model.train(training)
    samples = torch.cat(blocks)[:n].numpy()
    return samples.astype(np.uint8) if spec.is_binary else samples.astype(np.float32)


def _draw_block(model: Vae, temperature: float, seed: int, block: int) -> torch.Tensor:
    key = np.random.SeedSequence([seed, block]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(key[0]))
    written: list[torch.Tensor] = []
    left, after = _piece_steps(model), None
    while left > 0:
        part = model.sample(_BLOCK, min(left, model.config.window), temperature, generator, after)
        written.append(part.cpu())
        left, after = left - part.shape[1], _place_after(part)
    return torch.cat(written, dim=1)


def _piece_steps(model: Vae) -> int:
    """As long as most songs are, of windows with codes of their own; one window where they know nothing of another."""
    return max(model.spec.window, model.spec.typical_song) if model.continues else model.config.window


def _place_after(part: torch.Tensor) -> Batch:
    """Windows that go on where those of `part`, [B, T, D], end."""
    last, rows = part[:, -1:], torch.zeros(len(part), dtype=torch.long, device=part.device)
    return Batch(torch.zeros_like(last), torch.ones_like(last[..., 0], dtype=torch.bool), last[:, 0], rows > 0, rows)


def write(samples: npt.NDArray[Any], spec: DataSpec, directory: Path, name: str) -> list[str]:
    """Writes samples into a folder: music as `000.mid` ..., else `samples.npy`; and a picture.

    MIDI files with higher numbers that an earlier call left there are removed.

    Args:
        samples: [n, T, D], as `draw` gives them.
        spec: the data.
        directory: where.
        name: titles the pieces, such as the name of the sweep.

    Returns:
        The names of the files, the picture last.

    Raises:
        UserError: the folder can't be written.
    """
    from vae.sheet import piano_roll_sheet

    try:
        directory.mkdir(parents=True, exist_ok=True)
        ours = (directory / SHEET).exists()  # else numbered files there are the user's own
        names = [*(_write_midi if spec.is_music else _write_array)(samples, spec, directory, name), SHEET]
        piano_roll_sheet(samples, spec, directory / SHEET, name)
        if ours:
            _discard_earlier(directory, names)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror}); pass another --out.") from None
    return names


def _write_midi(samples: npt.NDArray[Any], spec: DataSpec, directory: Path, name: str) -> list[str]:
    from vae.midi import write_midi

    names = []
    for number, sample in enumerate(samples):
        notes, title = decode(sample, spec.encoding), f"{name} {number:03d}"
        names.append(f"{number:03d}.mid")
        write_midi(
            notes,
            directory / names[-1],
            spec.tempo,
            spec.steps_per_beat,
            title,
            steps_per_bar=spec.steps_per_bar,
        )
    return names


def _write_array(samples: npt.NDArray[Any], spec: DataSpec, directory: Path, name: str) -> list[str]:
    del spec, name
    buffer = io.BytesIO()
    np.save(buffer, _as_array(samples))
    write_atomically(directory / ARRAY, buffer.getvalue())
    return [ARRAY]


def _as_array(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[n, D] for rows, [n, T, D] for longer pieces: the shape that the user's own array has."""
    return samples[:, 0] if samples.shape[1] == 1 else samples


def _discard_earlier(directory: Path, names: list[str]) -> None:
    """Removes the numbered MIDI files of an earlier, larger run."""
    for path in directory.glob("*.mid"):
        if re.fullmatch(r"\d{3,}", path.stem) and path.name not in names:
            path.unlink()


def synthesise(sample: npt.NDArray[Any], spec: DataSpec, rate: int = AUDIO_RATE) -> npt.NDArray[np.float32]:
    """Plays one piece of music, [T, D], with sine waves.

    Returns:
        Mono sound between -1 and 1, `rate` numbers a second; silence lasts as long as the piece.
    """
    from vae.midi import to_pretty_midi

    notes = decode(sample, spec.encoding)
    if not len(notes):
        seconds = len(sample) / spec.steps_per_beat * 60.0 / spec.tempo
        return np.zeros(math.ceil(seconds * rate), np.float32)
    sound = to_pretty_midi(notes, spec.tempo, spec.steps_per_beat, "sample").synthesize(fs=rate)
    return np.asarray(sound, np.float32)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m vae.sample",
        description="Writes new music from a checkpoint: MIDI files and a picture of them.",
    )
    add_checkpoint_arguments(parser)
    parser.add_argument("-n", type=int, default=16, metavar="N", help="how many pieces (default: 16)")
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="under 1 is safer, over 1 is wilder (default: 1.0)",
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same pieces (default: 0)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: samples/ in the sweep's or the checkpoint's folder"
    )
    return parser.parse_args(argv)


def _check(args: argparse.Namespace) -> None:
    """Refuses numbers that make no sense.

    Raises:
        UserError: naming the flag.
    """
    if args.n < 1:
        raise UserError(f"-n must be at least 1, but got {args.n}.")
    if not 0.0 < args.temperature < math.inf:
        raise UserError(f"--temperature must be a number above 0, but got {args.temperature}.")
    if args.seed < 0:
        raise UserError(f"--seed must be at least 0, but got {args.seed}.")


def _run(args: argparse.Namespace) -> None:
    _check(args)
    directory = chosen_directory(args)
    loaded = checkpoint.load(directory)
    if args.checkpoint is None:
        name = directory.parent.name
        home = Path("results" if is_remote(args.results) else args.results) / name
    else:
        name, home = directory.resolve().name, directory
    out = args.out or home / "samples"
    samples = draw(loaded.model, loaded.spec, args.n, args.temperature, args.seed)
    names = write(samples, loaded.spec, out, name)
    lines = [
        _origin(name, loaded),
        _content(samples, loaded.spec),
        f"{out}: {names[0]}{f' to {names[-2]}' if len(names) > 2 else ''}, {SHEET}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _origin(name: str, loaded: checkpoint.Checkpoint) -> str:
    """Where the samples come from, in a line."""
    metrics = loaded.record["metrics"]
    trial = metrics.get("provenance", {}).get("trial")
    parts = [loaded.config.family] + ([] if trial is None else [f"trial {trial}"])
    parts += [f"epoch {metrics['epoch']:.0f}"] if "epoch" in metrics else []
    parts += [f"val_elbo {metrics['val_elbo']:.3f} nats per step"] if "val_elbo" in metrics else []
    return f"{name}: {', '.join(parts)}"


def _content(samples: npt.NDArray[Any], spec: DataSpec) -> str:
    """What the samples are like, in a line."""
    if not spec.is_music:
        shape = list(_as_array(samples).shape)
        return f"array {shape} {samples.dtype}, mean {samples.mean():.3f}, std {samples.std():.3f}"
    parts = [
        f"{name.replace('_', ' ')} {values[~np.isnan(values)].mean():.2f}"
        for name, values in measure(samples, spec).items()
        if not np.isnan(values).all()
    ]
    return f"{len(samples)} pieces of {samples.shape[1]} steps: {', '.join(parts)}"


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parse(argv)
    return exit_code(lambda: _run(args))


if __name__ == "__main__":
    sys.exit(main())

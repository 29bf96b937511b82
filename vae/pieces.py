"""Pieces of a model: from codes drawn from the prior, or from the codes of songs.

Shape letters: T time steps, D features. A song is cut into windows as the metric cuts it, and the windows of a piece go
on from one another, each by its own code (or each of its steps by its own).
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vae.corpus import Split
from vae.encoding import DataSpec
from vae.models.base import Vae
from vae.windows import Batch, Songs

Array = npt.NDArray[Any]

_BLOCK = 16
"""Pieces decoded at once, always; each block has random numbers of its own.

So piece 3 of a seed is the same, to the bit, however many are asked for.
"""
_NEARLY_PARALLEL = 1e-3  # the sine of an angle under which an arc is a line


class Window(NamedTuple):
    """A window of a piece to be written."""

    z: Tensor  # [n, Z] or [n, T, Z], as in `Code`
    steps: int  # T


Codes = list[Window]
"""Of all windows of a piece."""


@torch.no_grad()
def draw(model: Vae, n: int, temperature: float, seed: int) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    """Draws pieces: codes from the prior, then x ~ p(x|z), window after window.

    Args:
        model: on any device; random numbers are drawn on the CPU.
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
    return _as_data(torch.cat(blocks)[:n], model.spec)


def _draw_block(model: Vae, temperature: float, seed: int, block: int) -> Tensor:
    generator = _generator(seed, block)
    window, steps = model.config.window, _piece_steps(model)
    lengths = [min(window, steps - begin) for begin in range(0, steps, window)]
    drawn = (Window(torch.randn(model.code_shape(_BLOCK, part), generator=generator), part) for part in lengths)
    return _write(model, drawn, temperature, generator)


def _generator(seed: int, number: int) -> torch.Generator:
    key = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(key[0]))


def _piece_steps(model: Vae) -> int:
    """As long as most songs are, of windows with codes of their own; one window where they know nothing of another."""
    return max(model.spec.window, model.spec.typical_song) if model.continues else model.config.window


def _write(model: Vae, windows: Iterable[Window], temperature: float, generator: torch.Generator) -> Tensor:
    """Pieces window after window, [n, T, D]; random numbers are taken as they are needed."""
    written: list[Tensor] = []
    after = None
    for z, steps in windows:
        part = model.decode(z.to(model.device()), steps, temperature, generator, after)
        written.append(part.cpu())
        after = _place_after(part)
    return torch.cat(written, dim=1)


def _place_after(part: Tensor) -> Batch:
    """Windows that go on where those of `part`, [B, T, D], end."""
    last, rows = part[:, -1:], torch.zeros(len(part), dtype=torch.long, device=part.device)
    return Batch(torch.zeros_like(last), torch.ones_like(last[..., 0], dtype=torch.bool), last[:, 0], rows > 0, rows)


def _as_data(pieces: Tensor, spec: DataSpec) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    samples = pieces.numpy()
    return samples.astype(np.uint8) if spec.is_binary else samples.astype(np.float32)


def vary(model: Vae, song: Array, amount: float, n: int, temperature: float, seed: int) -> Array:
    """Draws pieces with the codes of a song, moved towards other draws from the prior.

        z' = cos(a) z + sin(a) e,  a = amount * pi / 2,  z ~ q(z|x),  e ~ N(0, 1)

    Args:
        model: in evaluation mode.
        song: [T, D].
        amount: 0 to 1; at 0 the codes of the song, at 1 codes that have nothing of it.
        n: pieces.
        temperature: as of `draw`.
        seed: as of `draw`.

    Returns:
        [n, T, D], as `draw` gives them.
    """
    angle = amount * math.pi / 2.0
    pieces = []
    for number in range(n):
        generator = _generator(seed, number)
        codes = [
            Window(math.cos(angle) * z + math.sin(angle) * torch.randn(z.shape, generator=generator), steps)
            for z, steps in read_codes(model, song, generator)
        ]
        pieces.append(play(model, codes, temperature, generator))
    return np.stack(pieces)


def interpolate(model: Vae, first: Array, last: Array, n: int, temperature: float, seed: int) -> Array:
    """Draws pieces whose codes lead from those of one song to those of another, on a great circle (slerp).

    As in MusicVAE (Roberts et al. 2018), after White 2016. All pieces get the same random numbers: they differ by their
    codes alone.

    Args:
        model: in evaluation mode.
        first: [T, D], of which as much is used as the other has.
        last: another, likewise.
        n: pieces; the first has the codes of `first`, the last those of `last`; one alone lies in the middle.
        temperature: as of `draw`.
        seed: as of `draw`.

    Returns:
        [n, T, D], as `draw` gives them.
    """
    steps = min(len(first), len(last))
    ends = [read_codes(model, song[:steps], _generator(seed, 0)) for song in (first, last)]
    pieces = []
    for share in np.linspace(0.0, 1.0, n) if n > 1 else [0.5]:
        codes = [Window(_between(a.z, b.z, float(share)), a.steps) for a, b in zip(*ends, strict=True)]
        pieces.append(play(model, codes, temperature, _generator(seed, 1)))
    return np.stack(pieces)


def _between(a: Tensor, b: Tensor, share: float) -> Tensor:
    """A point on the arc from a to b, [..., Z]; on the line where they point the same way, or opposite ways."""
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1)[..., None].clamp(-1.0, 1.0)
    angle = cosine.arccos()
    sine = angle.sin()
    straight = sine < _NEARLY_PARALLEL
    sine = sine.masked_fill(straight, 1.0)
    arc = ((1.0 - share) * angle).sin() / sine * a + (share * angle).sin() / sine * b
    return torch.where(straight, torch.lerp(a, b, share), arc)


@torch.no_grad()
def read_codes(model: Vae, song: Array, generator: torch.Generator) -> Codes:
    """Draws the codes of a song, [T, D], from their posteriors: one piece's."""
    songs = Songs(Split(song, np.array([len(song)])), model.device())
    plan = songs.partition(model.config.window)
    codes = []
    for number in range(len(plan)):
        part = plan[number : number + 1]
        batch = songs.batch(part, model.padded_to(part.longest))
        noise = torch.randn(model.code_shape(*batch.mask.shape), generator=generator)
        codes.append(Window(model.code(batch, noise.to(model.device())).z.cpu(), part.longest))
    return codes


@torch.no_grad()
def play(model: Vae, codes: Codes, temperature: float, generator: torch.Generator) -> Array:
    """Writes the piece that codes, of one, tell: [T, D], as `draw` gives it."""
    return _as_data(_write(model, codes, temperature, generator)[0], model.spec)

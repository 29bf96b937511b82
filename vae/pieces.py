"""Pieces of a model: from codes drawn from the prior, or from the codes of songs.

Shape letters: n pieces, T time steps, D features. A song is cut into windows as the metric cuts it, and the windows of
a piece go on from one another, each by its own code (or each of its steps by its own).
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vae.config import MOST_STEPS
from vae.corpus import Split
from vae.models.base import Normal, Vae, in_use
from vae.windows import Batch, Songs

Array = npt.NDArray[Any]

_BLOCK = 16
"""Pieces decoded at once, always; each block has random numbers of its own.

So piece 3 of a seed is the same, to the bit, however many are asked for.
"""
_NEARLY_PARALLEL = 1e-3  # the sine of an angle under which an arc is a line


class Part(NamedTuple):
    """A window of some pieces, to be written."""

    z: Tensor  # [n, Z] or [n, T, Z], as in `Code`
    steps: int  # T


class Read(NamedTuple):
    """A window of a song, as the encoder reads it."""

    posterior: Normal  # of one window
    steps: int  # T


def draw(model: Vae, n: int, temperature: float, seed: int) -> Array:
    """Draws pieces: codes from the prior, then x ~ p(x|z), window after window.

    Args:
        model: on any device; random numbers are drawn on the CPU.
        n: pieces, at least 1.
        temperature: divides the logits of keys; codes are drawn at 1, and real data have none.
        seed: at least 0; with the same model, the same pieces.

    Returns:
        [n, T, D], uint8 of 0 and 1; for real data the decoder's means, float32.
    """
    window, steps = model.config.window, _piece_steps(model)
    lengths = [min(window, steps - begin) for begin in range(0, steps, window)]

    def parts(generator: torch.Generator) -> Iterable[Part]:
        return (Part(torch.randn(model.code_shape(_BLOCK, part), generator=generator), part) for part in lengths)

    return _in_blocks(model, parts, n, temperature, seed)


def vary(model: Vae, song: Array, amount: float, n: int, temperature: float, seed: int) -> Array:
    """Draws pieces with the codes of a song, mixed with draws from the prior.

        z' = cos(a) z + sin(a) e,  a = amount * pi / 2,  z ~ q(z|x),  e ~ N(0, 1)

    Args:
        model: as of `draw`.
        song: [T, D].
        amount: 0 to 1; at 0 the codes of the song, at 1 codes that have nothing of it.
        n: pieces.
        temperature: as of `draw`.
        seed: as of `draw`.

    Returns:
        [n, T, D], as `draw` gives them.
    """
    read, angle = posteriors(model, song), amount * math.pi / 2.0

    def parts(generator: torch.Generator) -> Iterable[Part]:
        for window in read:
            z = _drawn(window, _BLOCK, generator)
            other = torch.randn(z.shape, generator=generator)
            yield Part(math.cos(angle) * z + math.sin(angle) * other, window.steps)

    return _in_blocks(model, parts, n, temperature, seed)


def interpolate(model: Vae, first: Array, last: Array, n: int, temperature: float, seed: int) -> Array:
    """Draws pieces whose codes lead from those of one song to those of another, each on an arc, see `between`.

    As in MusicVAE (Roberts et al. 2018). The codes of both songs are drawn by the same random numbers, and so are all
    pieces: where the codes say nothing, they are the same.

    Args:
        model: as of `draw`.
        first: [T, D], of which as much is used as the other has.
        last: another, likewise.
        n: pieces; the first has the codes of `first`, the last those of `last`; one alone lies in the middle.
        temperature: as of `draw`.
        seed: as of `draw`.

    Returns:
        [n, T, D], as `draw` gives them.
    """
    steps = min(len(first), len(last))
    ends = []
    for song in (first, last):
        generator = _generator(seed, 0)
        ends.append([Part(_drawn(window, 1, generator), window.steps) for window in posteriors(model, song[:steps])])
    pieces = []
    for share in np.linspace(0.0, 1.0, n) if n > 1 else [0.5]:
        parts = [Part(between(a.z, b.z, float(share)), a.steps) for a, b in zip(*ends, strict=True)]
        pieces.append(_write(model, parts, temperature, _generator(seed, 1)))
    return np.concatenate(pieces)


def between(a: Tensor, b: Tensor, share: float) -> Tensor:
    """A point on the way from a to b, [..., Z]: by slerp (White 2016), which keeps to the lengths that codes have.

    On the line where they point the same way, or opposite ways.
    """
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1)[..., None].clamp(-1.0, 1.0)
    angle = cosine.arccos()
    sine = angle.sin()
    straight = sine < _NEARLY_PARALLEL
    sine = sine.masked_fill(straight, 1.0)
    arc = ((1.0 - share) * angle).sin() / sine * a + (share * angle).sin() / sine * b
    return torch.where(straight, torch.lerp(a, b, share), arc)


def posteriors(model: Vae, song: Array) -> list[Read]:
    """The posteriors of a song's windows, [T, D]."""
    songs = Songs(Split(song, np.array([len(song)])), model.device())
    plan = songs.partition(model.scored)
    windows = []
    with in_use(model):
        for number in range(len(plan)):
            part = plan[number : number + 1]
            batch = songs.batch(part, model.padded_to(part.longest))
            mean, std = model.posterior_of(batch)
            windows.append(Read(Normal(mean.cpu(), std.cpu()), part.longest))
    return windows


def _drawn(window: Read, n: int, generator: torch.Generator) -> Tensor:
    """Codes of n pieces, drawn from the posterior of a window."""
    mean, std = window.posterior
    return mean + std * torch.randn((n, *mean.shape[1:]), generator=generator)


def _in_blocks(
    model: Vae, parts: Callable[[torch.Generator], Iterable[Part]], n: int, temperature: float, seed: int
) -> Array:
    """Pieces from the parts of `_BLOCK` pieces, which are made anew for each block."""
    blocks = []
    for number in range(math.ceil(n / _BLOCK)):
        generator = _generator(seed, number)
        blocks.append(_write(model, parts(generator), temperature, generator))
    return np.concatenate(blocks)[:n]


def _generator(seed: int, number: int) -> torch.Generator:
    key = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(key[0]))


def _piece_steps(model: Vae) -> int:
    """As long as most songs are, of windows with codes of their own; one window where they know nothing of another."""
    if not model.continues:
        return model.config.window
    return min(max(model.spec.window, model.spec.typical_song), MOST_STEPS)


def _write(model: Vae, parts: Iterable[Part], temperature: float, generator: torch.Generator) -> Array:
    """Pieces part after part, [n, T, D]; random numbers are taken as they are needed."""
    written: list[Array] = []
    after = None
    with in_use(model):
        for z, steps in parts:
            part = model.decode(z.to(model.device()), steps, temperature, generator, after)
            written.append(_as_data(model, part))  # at once, for bytes take a quarter of the memory
            after = _place_after(part)
    return np.concatenate(written, axis=1)


def _place_after(part: Tensor) -> Batch:
    """Windows that go on where those of `part`, [B, T, D], end."""
    last, rows = part[:, -1:], torch.zeros(len(part), dtype=torch.long, device=part.device)
    return Batch(torch.zeros_like(last), torch.ones_like(last[..., 0], dtype=torch.bool), last[:, 0], rows > 0, rows)


def _as_data(model: Vae, pieces: Tensor) -> Array:
    return pieces.cpu().numpy().astype(np.uint8 if model.spec.is_binary else np.float32)

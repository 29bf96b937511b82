"""`transformer`: a causal decoder that is given the code at every layer; an LSTM each way makes the code.

Pre-norm blocks (Vaswani et al. 2017; Xiong et al. 2020) with rotary positions.
"""

import torch
from torch import Tensor, nn

from vae.config import Config
from vae.encoding import DataSpec
from vae.models.base import SummaryVae
from vae.models.dropout import Dropout
from vae.models.layers import Memory, PastReader, attend, read_code, rotate
from vae.models.likelihood import Moments
from vae.windows import Batch


class _Block(nn.Module):
    """Attention to the steps so far, then two dense layers; the code shifts what both read."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.transformer_width
        self._heads = config.transformer_heads
        self.code = read_code(config.latent_dim, 2 * width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.attend = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.dense = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = Dropout(config.dropout)

    def forward(self, h: Tensor, z: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """[B, T, H] steps, which follow those in the memory, and the code [B, Z]; also the memory with these steps."""
        first, second = self.code(z)[:, None].chunk(2, dim=-1)
        query, key, value = self.attend(self.norms[0](h) + first).unflatten(2, (3, self._heads, -1)).unbind(2)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))  # [B, heads, T, H / heads]
        before = 0 if memory is None else memory[0].shape[2]
        query, key = rotate(query, before), rotate(key, before)
        if memory is not None:
            key, value = torch.cat([memory[0], key], dim=2), torch.cat([memory[1], value], dim=2)
        found = attend(query, key, value, is_causal=memory is None)
        h = h + self.dropout(self.attended(found.transpose(1, 2).flatten(2)))
        return h + self.dropout(self.dense(self.norms[1](h) + second)), (key, value)


class Transformer(SummaryVae):
    """Steps one after another, each attending to all before it."""

    def __init__(self, config: Config, spec: DataSpec, moments: Moments | None) -> None:
        super().__init__(config, spec, moments, config.transformer_width)
        self.past = PastReader(config, spec, self.head, config.transformer_width)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.transformer_layers))
        self.norm = nn.LayerNorm(config.transformer_width)

    def states(self, batch: Batch, z: Tensor) -> Tensor:
        """See `Vae.states`."""
        h = self.past(batch)
        for block in self.blocks:
            h, _ = block(h, z)
        return self.norm(h)  # type: ignore[no-any-return]

    def decode(
        self, z: Tensor, steps: int, temperature: float, generator: torch.Generator, after: Batch | None = None
    ) -> Tensor:
        """See `Vae.decode`."""
        memories: list[Memory | None] = [None] * len(self.blocks)
        read, written = self.past.first(len(z), after), []
        for _ in range(steps):
            h = read
            for i, block in enumerate(self.blocks):
                h, memories[i] = block(h, z, memories[i])
            x = self.head.sample(self.norm(h)[:, 0], temperature, generator)
            read = self.past.one(x)
            written.append(x)
        return torch.stack(written, dim=1)

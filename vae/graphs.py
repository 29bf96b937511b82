"""Training steps as CUDA graphs.

On a GPU a small model's step is hundreds of kernels of some microseconds each, and Python takes ten times as long to
launch them one by one. A graph launches all of them at once. It is for tensors of one shape, at one place in memory: so
batches come in few shapes on a GPU (`Vae.padded_to`, `Batch.on`), and what they hold is copied to where it was.

`VAE_GRAPHS=0` in the environment launches every step, `VAE_GRAPHS=64` records as many shapes (the default).
"""

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_WARM = 2
"""Times that a shape is computed before its graph is recorded: libraries choose their algorithms, gradients get their
memory, and shapes that hardly ever come are not worth a graph."""
_MOST = int(os.environ.get("VAE_GRAPHS") or 64)
"""Graphs of a trainer."""


class Graphs:
    """Functions on a GPU, recorded once per shape of their inputs and then replayed; elsewhere they are called.

    Args:
        device: of all that the functions compute.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seen: Counter[Any] = Counter()
        self._graphs: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}
        # A stream of one's own: nothing can be recorded on the usual one, and memory goes around within a stream.
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def run(self, compute: Callable[..., Tensor], shape: tuple[Any, ...], *inputs: Tensor) -> Tensor:
        """Gives `compute(shape, *inputs)`, valid until the next call.

        Args:
            compute: the same at every call, waits for nothing, and has side effects in tensors that stay in place only.
            shape: what sizes hang on that are not those of the inputs.
            inputs: on the CPU.
        """
        if self._stream is None:
            return compute(shape, *inputs)
        key = (shape, *(given.shape for given in inputs))
        if key not in self._graphs:
            self._seen[key] += 1
            if self._seen[key] <= _WARM or len(self._graphs) >= _MOST:
                return compute(shape, *(given.to(self._device, non_blocking=True) for given in inputs))
            self._graphs[key] = self._record(compute, shape, inputs)
        graph, own, made = self._graphs[key]
        for place, given in zip(own, inputs, strict=True):
            place.copy_(given, non_blocking=True)
        graph.replay()
        return made

    def _record(
        self, compute: Callable[..., Tensor], shape: tuple[Any, ...], inputs: tuple[Tensor, ...]
    ) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        own, graph = [given.to(self._device) for given in inputs], torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            made = compute(shape, *own)
        return graph, own, made

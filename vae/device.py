"""Where models train, in which precision, and in how little memory."""

import ctypes
import os
import sys
from collections.abc import Mapping
from typing import Any

import torch

# oneDNN, PyTorch's library for products on CPUs, keeps code for the last 1,024 shapes: half a GiB, where songs have
# many lengths. Keeping 64 costs a few hundredths of the speed. It reads this when it first runs.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

torch.backends.cuda.enable_cudnn_sdp(False)  # it makes a plan for each shape, which takes longer than what it saves


def default_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def gains_by_bf16(family: str, device: torch.device) -> bool:
    """Whether products in bf16 make training faster: on GPUs that have it, and on CPUs for all but dense layers.

    Those have few rows a batch for their weights, whose conversion then costs as much as it gains.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older releases of PyTorch do not tell.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16")) and family != "dense"


def lacks_memory(error: Exception) -> bool:
    """Whether an error of PyTorch is that it found no memory, of a GPU or of the machine."""
    return any(word in str(error) for word in ("out of memory", "can't allocate memory", "not enough memory"))


def release_gpu() -> None:
    """Gives back what PyTorch keeps of a GPU, for others share it; once no trainer is alive, see `vae.graphs`."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()


def release_memory() -> None:
    """Gives what is free back to the system.

    Batches of ever new sizes leave holes between what lives on, which glibc keeps: twice the memory after an hour.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)

"""Where models train, and in which precision."""

from collections.abc import Mapping
from typing import Any

import torch


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

"""Choice of the implementation."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from pet_calc.kernels import paths
from pet_calc.kernels.lattice_attention import padded
from pet_calc.kernels.lattice_attention.layout import ImageLayout

_log = logging.getLogger("pet_calc")

Backend = Literal["auto", "padded", "triton"]


def triton_refusal(query: Tensor) -> str | None:
    """Why the Triton kernels cannot run on such tensors; None if they can."""
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if query.dtype not in (torch.float32, torch.float64):
        return f"they take float32 or float64, not {query.dtype}"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if query.device.type != "cuda" and not interpreted:
        return f"they run on CUDA devices, not on {query.device.type}"
    return None


def lattice_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    falloff: Tensor,
    squared_distance: Tensor,
    log_weight: Tensor,
    basis: Tensor,
    layout: ImageLayout,
    scale: float,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Attention of every atom over periodic images; see the reference.

    Parameters
    ----------
    query, key, value, falloff, squared_distance, log_weight, basis, layout, scale
        As of the reference.
    backend : {"auto", "padded", "triton"}
        "auto" is the Triton kernels on CUDA devices where they can run (the reason why not goes
        to the logger ``pet_calc``, level DEBUG), else products of small matrices. A backend named
        here is used or raises.
    """
    arguments = (
        query, key, value, falloff, squared_distance, log_weight, basis, layout, scale,
    )  # fmt: skip
    if backend not in ("auto", "padded", "triton"):
        raise ValueError(f"`backend` must be 'auto', 'padded' or 'triton', got {backend!r}")
    wanted = query.device.type == "cuda" or paths.triton_wanted(query.device)
    if backend == "padded" or (backend == "auto" and not wanted):
        return padded.lattice_attention(*arguments)
    refusal = triton_refusal(query)
    if refusal is None and (backend == "triton" or paths.take(paths.LATTICE_ATTENTION)):
        from pet_calc.kernels.lattice_attention import triton

        return triton.lattice_attention(*arguments)
    if backend == "triton":
        raise ValueError(f"the Triton kernels cannot be used: {refusal}")
    if refusal is not None:
        _log.debug("lattice attention without Triton kernels: %s", refusal)
    return padded.lattice_attention(*arguments)

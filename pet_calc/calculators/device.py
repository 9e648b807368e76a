"""The device that a calculator computes on."""

from __future__ import annotations

import torch


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device of that name; None is a GPU that works, else the CPU.

    Raises
    ------
    ValueError
        For a device that is not there, or is neither a CPU nor a CUDA device.
    """
    if device is None:
        return torch.device("cuda" if cuda_problem("cuda") is None else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"`device` must be 'cpu', 'cuda' or 'cuda:N', got {device!r}") from error
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"`device` must be 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    if chosen.type == "cuda":
        problem = cuda_problem(chosen)
        if problem is not None:
            raise ValueError(f"`device` {str(chosen)!r} does not work: {problem}; use 'cpu'")
    return chosen


def cuda_problem(device: str | torch.device) -> str | None:
    """Why a CUDA device cannot be used; None if it can."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    try:
        # a device can be listed and yet be of a kind that this torch has no kernels for
        torch.zeros(1, device=device).add_(1.0)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None

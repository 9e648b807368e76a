"""Derivatives of Triton kernels that only training needs: those of the reference, by autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def reference_gradients(
    function: Callable[..., Tensor | tuple[Tensor, ...]],
    tensors: Sequence[Tensor],
    needed: Sequence[bool],
    grads: Sequence[Tensor],
) -> list[Tensor | None]:
    """Gradients on the tensors that need one; in grad mode they can be differentiated again.

    Parameters
    ----------
    function : callable
        The reference as a function of the tensors.
    tensors : sequence of Tensor
    needed : sequence of bool
        Which of them need a gradient.
    grads : sequence of Tensor
        Gradients on what the function returns.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # copies by reference, as one input may be a function of another
        inputs = [
            t.view_as(t) if again else t.detach().requires_grad_(need)
            for t, need in zip(tensors, needed, strict=True)
        ]
        outputs = function(*inputs)
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if o.requires_grad]
        found = iter(
            torch.autograd.grad(
                [o for o, _ in pairs],
                [t for t, need in zip(inputs, needed, strict=True) if need],
                [g for _, g in pairs],
                create_graph=again,
                materialize_grads=True,
            )
        )
    return [next(found) if need else None for need in needed]

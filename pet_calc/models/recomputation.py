"""Memory for time: activations that are not kept for the backward pass but computed again in it.

The derivatives are the same ones, at about a third more time [Chen et al., arXiv:1604.06174]. They
can be differentiated again, and be taken by ``torch.autograd.grad``; `torch.utils.checkpoint` does
that too, but brings the compiler into memory, which is larger than what it saves on a crystal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from pet_calc.kernels.operation import bound


def _gradients(
    function: Callable[..., Any],
    tensors: Sequence[Tensor],
    n: int,
    needed: Sequence[int],
    gradients: Sequence[Tensor],
    *,
    create_graph: bool = False,
) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients for `needed` of the `tensors`, and what they are functions of.

    The first `n` tensors are inputs; each becomes a leaf, as one may be a function of another.
    """
    leaves = [t.detach().requires_grad_(k in needed) for k, t in enumerate(tensors[:n])]
    sources = [*leaves, *tensors[n:]]
    with torch.enable_grad():
        outputs = function(*leaves)
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        pairs = [(o, g) for o, g in zip(outputs, gradients, strict=True) if o.requires_grad]
        found = torch.autograd.grad(
            [o for o, _ in pairs],
            [sources[k] for k in needed],
            [g for _, g in pairs],
            create_graph=create_graph,
            materialize_grads=True,
        )
    return list(found), sources


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Any], n: int, *tensors: Tensor) -> Any:
        ctx.function, ctx.n = function, n
        ctx.save_for_backward(*tensors)
        return function(*tensors[:n])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        tensors = ctx.saved_tensors
        needed = [k for k, wanted in enumerate(ctx.needs_input_grad[2:]) if wanted]
        found = _Gradient.apply(  # type: ignore[no-untyped-call]
            ctx.function, ctx.n, needed, len(tensors), *tensors, *gradients
        )
        result: list[Tensor | None] = [None] * len(tensors)
        for k, gradient in zip(needed, found, strict=True):
            result[k] = gradient
        return (None, None, *result)


class _Gradient(torch.autograd.Function):
    """The gradient of a recomputed function as a function of its own."""

    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., Any], n: int, needed: list[int], m: int, *both: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.function, ctx.n, ctx.needed, ctx.m = function, n, needed, m
        ctx.save_for_backward(*both)
        return tuple(_gradients(function, both[:m], n, needed, both[m:])[0])

    @staticmethod
    def backward(ctx: Any, *seconds: Tensor) -> tuple[Any, ...]:
        tensors, outer = ctx.saved_tensors[: ctx.m], ctx.saved_tensors[ctx.m :]
        outer = [g.detach().requires_grad_() for g in outer]
        firsts, sources = _gradients(
            ctx.function, tensors, ctx.n, ctx.needed, outer, create_graph=True
        )
        pairs = [(f, s) for f, s in zip(firsts, seconds, strict=True) if f.requires_grad]
        asked = [*(sources[k] for k in ctx.needed), *outer]
        found = torch.autograd.grad(
            [f for f, _ in pairs], asked, [s for _, s in pairs], materialize_grads=True
        )
        result: list[Tensor | None] = [None] * ctx.m
        for k, gradient in zip(ctx.needed, found, strict=False):
            result[k] = gradient
        return (None, None, None, None, *result, *found[len(ctx.needed) :])


def recomputed(
    function: Callable[..., Any], *inputs: Tensor, parameters: Iterable[Tensor] = ()
) -> Any:
    """Value of `function`, of which nothing is kept but the inputs.

    Parameters
    ----------
    function : callable
        Deterministic; returns a tensor or a tuple of tensors.
    *inputs : Tensor
    parameters : iterable of Tensor
        Whatever else `function` uses that derivatives may be asked of.
    """
    trained = [p for p in parameters if p.requires_grad]
    # the backward pass, which may run in a thread of its own, uses the same kernels
    function = bound(function)
    return _Recomputed.apply(function, len(inputs), *inputs, *trained)  # type: ignore[no-untyped-call]


def by_rows(
    function: Callable[..., Tensor],
    *inputs: Tensor,
    rows: int | None,
    parameters: Iterable[Tensor] = (),
) -> Tensor:
    """Value of a function that treats each row alike, `recomputed` in parts.

    Parameters
    ----------
    function : callable
        Maps tensors (n, ...) to one (n, ...), row by row.
    *inputs : Tensor
        Of equal length.
    rows : int or None
        Length of the parts; None computes all at once and keeps everything.
    parameters : iterable of Tensor
        See `recomputed`.
    """
    if rows is None:
        return function(*inputs)
    trained = tuple(parameters)
    parts = zip(*(x.split(rows) for x in inputs), strict=True)
    return torch.cat([recomputed(function, *part, parameters=trained) for part in parts])

"""Operations that have a form in torch and one in Triton kernels, and the choice between the two.

The choice is in force for a block of code and in one context only, see `using_kernels`. Without one
the form in torch is used. No Triton kernel has run on a GPU yet, so that these have to be asked
for, and a calculator compares their first results with the reference
(`pet_calc.calculators.verification`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import update_wrapper
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Generic, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

from pet_calc.kernels.precision import Precision, current_precision

P = ParamSpec("P")
R = TypeVar("R")

#: The option `kernels` of calculators.
Kernels = Literal["auto", "reference", "triton"]
#: What it comes to on a device.
Form = Literal["reference", "triton"]

#: Name of compiled transformers among the accelerated forms.
COMPILED: Final = "transformers by torch.compile"

_log = logging.getLogger("pet_calc")


def require_kernels(kernels: str, device: torch.device) -> Form:
    """What the option `kernels` of a calculator comes to on a device.

    Parameters
    ----------
    kernels : {"auto", "reference", "triton"}
        "reference" is torch; "triton" are the Triton kernels wherever they apply; "auto" is torch,
        or with ``PET_CALC_TRITON=1`` in the environment the Triton kernels where they can run.
    device : torch.device

    Raises
    ------
    ValueError
        For other values, and for "triton" where no Triton kernel can run.
    """
    if kernels not in ("auto", "reference", "triton"):
        raise ValueError(f"`kernels` must be 'auto', 'reference' or 'triton', got {kernels!r}")
    if kernels == "reference":
        return "reference"
    if kernels == "auto" and os.environ.get("PET_CALC_TRITON") != "1":
        return "reference"
    reason = unavailable(device)
    if reason is None:
        return "triton"
    if kernels == "triton":
        raise ValueError(
            f"`kernels` 'triton' cannot be used: {reason}; leave it out, or give 'reference'"
        )
    _log.debug("no Triton kernels: %s", reason)
    return "reference"


def interpreted() -> bool:
    """Whether Triton interprets kernels, on any device."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def unavailable(device: torch.device) -> str | None:
    """Why no Triton kernel can run on a device; None if they can."""
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if device.type != "cuda" and not interpreted():
        return f"Triton kernels run on CUDA devices, not on {device.type}"
    return None


@dataclass(eq=False)
class Selection:
    """Which accelerated forms an evaluation may use, and which it has used.

    Attributes
    ----------
    kernels : {"reference", "triton"}
        Whether Triton kernels may be among them.
    allowed : frozenset of str or None
        Names of accelerated forms; None are all.
    excluded : frozenset of str
        Of the allowed ones.
    used : dict
        Precision of each form that was used.
    """

    kernels: Form = "reference"
    allowed: frozenset[str] | None = None
    excluded: frozenset[str] = frozenset()
    used: dict[str, Precision] = field(default_factory=dict)

    def allows(self, name: str) -> bool:
        """Whether an accelerated form may be used."""
        return name not in self.excluded and (self.allowed is None or name in self.allowed)


_in_force: ContextVar[Selection | None] = ContextVar("pet_calc_kernels", default=None)


@contextmanager
def selecting(selection: Selection) -> Iterator[Selection]:
    """Evaluate with this selection within the block."""
    token = _in_force.set(selection)
    try:
        yield selection
    finally:
        _in_force.reset(token)


def using_kernels(kernels: Form) -> AbstractContextManager[Selection]:
    """Use one kind of kernels within the block, unverified; what was used is noted.

    >>> with using_kernels("triton") as selection:
    ...     results = evaluate(model, system, edges)
    >>> sorted(selection.used)
    """
    return selecting(Selection(kernels))


def reference_only() -> AbstractContextManager[Selection]:
    """Use no accelerated form within the block."""
    return selecting(Selection(allowed=frozenset()))


def use(name: str) -> bool:
    """Whether an accelerated form may be used where there is a choice; if so, it is noted."""
    selection = _in_force.get()
    if selection is None:
        return True
    if not selection.allows(name):
        return False
    selection.used[name] = current_precision()
    return True


def discard(name: str) -> None:
    """Take back the note that an accelerated form was used."""
    if (selection := _in_force.get()) is not None:
        selection.used.pop(name, None)


def bound(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function for later, in any thread, with the choices that are in force now."""
    context = copy_context()

    def later(*arguments: Any) -> Any:
        # a copy, as a context cannot be entered twice
        return context.copy().run(function, *arguments)

    return later


class Operation(Generic[P, R]):
    """A function with a form in torch, which is called, and one in Triton kernels.

    Parameters
    ----------
    torch_form : callable
        The first argument is a tensor, whose device and type decide.
    name : str
        In messages; operations of one name are selected and verified together.
    triton : str
        Where the form in Triton kernels is, "module:function".
    limit : callable
        Says why the kernels cannot take the arguments, of which it is a function; None if they can.
    dtypes : tuple of torch.dtype
        What the kernels take; in the interpreter also float64.
    """

    def __init__(
        self,
        torch_form: Callable[P, R],
        name: str,
        triton: str,
        limit: Callable[..., str | None],
        dtypes: tuple[torch.dtype, ...],
    ) -> None:
        update_wrapper(self, torch_form)
        self.torch_form, self.limit, self.dtypes = torch_form, limit, dtypes
        #: Name of the form in Triton kernels.
        self.name = f"{name} in Triton"
        self._module, self._function = triton.split(":")

    def __call__(self, *arguments: P.args, **options: P.kwargs) -> R:
        """The form in torch, or the Triton kernels where they are in force and apply."""
        # a region that torch.compile compiles fuses its steps by itself
        if not torch.compiler.is_compiling() and self.selected:
            tensor = arguments[0]
            assert isinstance(tensor, Tensor)
            if self.applies(tensor, lambda: self.limit(*arguments, **options)):
                return self.triton_form(*arguments, **options)
        return self.torch_form(*arguments, **options)

    def by(self, backend: Kernels, /, *arguments: P.args, **options: P.kwargs) -> R:
        """The same by the backend that is named, unverified; "auto" is as without a name.

        Raises
        ------
        ValueError
            If the Triton kernels cannot take the arguments.
        """
        if backend not in ("auto", "reference", "triton"):
            raise ValueError(f"`backend` must be 'auto', 'reference' or 'triton', got {backend!r}")
        if backend == "auto":
            return self(*arguments, **options)
        if backend == "reference":
            return self.torch_form(*arguments, **options)
        if (reason := self.reason(*arguments, **options)) is not None:
            raise ValueError(f"the Triton kernels cannot be used: {reason}")
        return self.triton_form(*arguments, **options)

    @property
    def triton_form(self) -> Callable[P, R]:
        """The form in Triton kernels, which is imported here."""
        form: Callable[P, R] = getattr(import_module(self._module), self._function)
        return form

    @property
    def selected(self) -> bool:
        """Whether the Triton kernels are in force, wherever they apply."""
        selection = _in_force.get()
        return (
            selection is not None and selection.kernels == "triton" and selection.allows(self.name)
        )

    def applies(self, tensor: Tensor, limit: Callable[[], str | None]) -> bool:
        """Whether the Triton kernels are in force and apply; if so, their use is noted.

        The reason why they do not apply goes to the logger ``pet_calc``, level DEBUG.

        Parameters
        ----------
        tensor : Tensor
        limit : callable
            Says why the kernels cannot take the arguments; asked last.
        """
        if not self.selected or torch.compiler.is_compiling():
            return False
        reason = self.unsuited(tensor) or limit()
        if reason is not None:
            _log.debug("without %s: %s", self.name, reason)
            return False
        return use(self.name)

    def reason(self, *arguments: P.args, **options: P.kwargs) -> str | None:
        """Why the Triton kernels cannot take the arguments; None if they can."""
        tensor = arguments[0]
        assert isinstance(tensor, Tensor)
        return self.unsuited(tensor) or self.limit(*arguments, **options)

    def unsuited(self, tensor: Tensor) -> str | None:
        """Why the Triton kernels cannot take a tensor for its device or type."""
        if (reason := unavailable(tensor.device)) is not None:
            return reason
        if tensor.dtype in self.dtypes or (interpreted() and tensor.dtype == torch.float64):
            return None
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in self.dtypes)
        return f"they take {names}, not {tensor.dtype}"


def operation(
    name: str,
    triton: str,
    limit: Callable[..., str | None] = lambda *_, **__: None,
    dtypes: tuple[torch.dtype, ...] = (torch.float32,),
) -> Callable[[Callable[P, R]], Operation[P, R]]:
    """Decorate the form in torch of an `Operation`; the parameters are those of the class."""

    def decorate(torch_form: Callable[P, R]) -> Operation[P, R]:
        return Operation(torch_form, name, triton, limit, dtypes)

    return decorate


def beyond(limit: int, number: int, what: str) -> str | None:
    """Why kernels that take `limit` of something do not take a `number`; None if they do."""
    return f"they take at most {limit} {what}, not {number}" if number > limit else None

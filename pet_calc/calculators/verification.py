"""Verification of accelerated kernels on the user's structures.

The first evaluation that uses an accelerated form (`pet_calc.kernels.operation`) is done again by
the reference. Where the two differ by more than rounding explains, the calculator does without that
form from then on, warns once, and returns what the reference gave.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import torch

from pet_calc.errors import PetCalcError
from pet_calc.geometry import Edges, System
from pet_calc.kernels.operation import (
    COMPILED,
    Form,
    Kernels,
    Selection,
    reference_only,
    require_kernels,
    selecting,
)
from pet_calc.kernels.precision import Precision
from pet_calc.models import EnergyModel, Results
from pet_calc.neighbors import neighbor_list
from pet_calc.neighbors.device import difference

T = TypeVar("T")

#: How a model is evaluated: `pet_calc.models.evaluate`, or a function like it.
Evaluation = Callable[[EnergyModel, System, Edges], Results]

_log = logging.getLogger("pet_calc")


@dataclass(frozen=True)
class Tolerance:
    """Largest difference of an atom's energy in eV and of a force component in eV/Å.

    Both are multiplied by the largest force in eV/Å if that exceeds 1.
    """

    energy: float
    force: float


#: What rounding explains. On 192 atoms of water (d = 128) arithmetic in float32 deviates from exact
#: arithmetic by 9e-7 eV per atom and 1.5e-5 of the forces' root mean square, products in
#: TensorFloat-32 by 3.1e-4 and 1.2e-3, in bfloat16 by 1.4e-3 and 1.0e-2; five to ten times as much
#: is allowed. In float64 other orders of summation change the last digits only.
TOLERANCES: Final = {
    "float64": Tolerance(1e-9, 1e-9),
    "highest": Tolerance(1e-5, 1e-4),
    "high": Tolerance(3e-3, 1e-2),
    "fast": Tolerance(1e-2, 1e-1),
}


def tolerance(dtype: torch.dtype, precisions: Collection[Precision]) -> Tolerance:
    """That of the least exact of some forms of a model in `dtype`."""
    for precision in ("fast", "high"):
        if precision in precisions:
            return TOLERANCES[precision]
    return TOLERANCES["float64" if dtype == torch.float64 else "highest"]


def disagreement(found: Results, reference: Results, allowed: Tolerance) -> str | None:
    """By how much results differ if that is more than allowed; None if it is not."""
    assert reference.forces is not None
    assert found.forces is not None
    largest = float(reference.forces.abs().max()) if len(reference.forces) else 0.0
    scale = max(1.0, largest)
    for name, unit, gap, limit in (
        ("energy of an atom", "eV", found.energies - reference.energies, allowed.energy),
        ("force", "eV/Å", found.forces - reference.forces, allowed.force),
    ):
        worst = float(gap.abs().max()) if gap.numel() else 0.0
        if not worst <= limit * scale:  # NaN is not
            return f"the {name} differs by {worst:.1e} {unit}, allowed are {limit * scale:.1e}"
    return None


@dataclass(frozen=True)
class Computation(Generic[T]):
    """Something that accelerated forms and the reference both compute.

    Attributes
    ----------
    run : callable
    differs : callable
        How a first result differs from a second one, that of the reference, by more than the
        precisions of the forms that were used explain; None if it does not.
    comparable : callable
        Whether a result of the reference can be compared with; waits until it is there.
    """

    run: Callable[[], T]
    differs: Callable[[T, T, Mapping[str, Precision]], str | None]
    comparable: Callable[[T], bool] = lambda _: True


class SelfCheck:
    """Which accelerated forms one calculator uses.

    Parameters
    ----------
    kernels : {"auto", "reference", "triton"}
        The option of the calculator.

    Attributes
    ----------
    verdicts : dict
        None for each form that agreed with the reference; else why it is not used any more.
    """

    def __init__(self, kernels: Kernels = "auto") -> None:
        self.kernels: Kernels = kernels
        self.verdicts: dict[str, str | None] = {}
        self._potentials: object = None

    def evaluate(
        self, evaluation: Evaluation, model: EnergyModel, system: System, edges: Edges,
        potentials: Callable[[], object],
    ) -> Results:  # fmt: skip
        """Results of `evaluation`; by the reference if a form that is used now disagrees.

        Parameters
        ----------
        evaluation, model, system, edges
        potentials : callable
            What the calculator computes with; of another one nothing is verified yet.
        """
        computation = Computation(
            lambda: evaluation(model, system, edges),
            lambda found, reference, used: disagreement(
                found, reference, tolerance(model.dtype, used.values())
            ),
            # what is not finite is refused by the caller
            lambda results: (
                results.forces is not None and bool(torch.isfinite(results.energies).all())
            ),
        )
        return self._verified(computation, require_kernels(self.kernels, system.device), potentials)

    def neighbor_list(self, system: System, cutoff: float) -> Edges:
        """All pairs closer than `cutoff`, see `pet_calc.neighbors.neighbor_list`."""
        computation = Computation(
            lambda: neighbor_list(system, cutoff),
            lambda found, reference, _: difference(system, cutoff, found, reference),
        )
        return self._verified(computation, require_kernels(self.kernels, system.device))

    def _verified(
        self,
        computation: Computation[T],
        kernels: Form,
        potentials: Callable[[], object] | None = None,
    ) -> T:
        """The result by accelerated forms, or by the reference if one that is new disagrees."""
        excluded = frozenset(name for name, reason in self.verdicts.items() if reason is not None)
        result, selection, problem = attempt(computation.run, Selection(kernels, excluded=excluded))
        if selection.used and potentials is not None and potentials() != self._potentials:
            self._potentials = potentials()
            self.verdicts = {name: self.verdicts[name] for name in excluded}
        new = [name for name in selection.used if name not in self.verdicts]
        if not new:
            if problem is not None:
                raise problem
            assert result is not None
            return result
        began = time.perf_counter()
        with reference_only():
            reference = computation.run()
        if not computation.comparable(reference):
            return reference
        seconds = time.perf_counter() - began
        if result is not None and not computation.differs(result, reference, selection.used):
            self.verdicts |= dict.fromkeys(new)
            if COMPILED in new:
                log_break_even(computation, selection, seconds)
            return result
        self.verdicts |= self._reasons(computation, kernels, new, reference)
        return reference

    def _reasons(
        self, computation: Computation[T], kernels: Form, new: Collection[str], reference: T
    ) -> dict[str, str | None]:
        """Which of the forms that disagree together do so alone, beside those verified before."""
        verified = frozenset(name for name, reason in self.verdicts.items() if reason is None)
        reasons: dict[str, str | None] = {}
        for name in new:
            alone, selection, problem = attempt(
                computation.run, Selection(kernels, allowed=verified | {name})
            )
            if problem is not None:
                reasons[name] = f"{type(problem).__name__}: {problem}"
            elif alone is not None and name in selection.used:
                reasons[name] = computation.differs(alone, reference, selection.used)
        if not any(reasons.values()):
            reasons = dict.fromkeys(new, "it does not together with the others")
        for name, reason in reasons.items():
            if reason is not None:
                warnings.warn(
                    f"this calculator goes without {name}, which does not agree with the reference "
                    f"on this structure: {reason}; results are those of the reference",
                    stacklevel=2,
                )
        return reasons


def attempt(
    run: Callable[[], T], selection: Selection
) -> tuple[T | None, Selection, Exception | None]:
    """A result with a selection of accelerated forms, or the error that one of them ended with.

    Errors of the structure, and those of memory, are raised.
    """
    try:
        with selecting(selection):
            return run(), selection, None
    except (PetCalcError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a compiler that fails has many names for it
        if not selection.used:
            raise
        return None, selection, error


def log_break_even(computation: Computation[T], selection: Selection, plain: float) -> None:
    """Log what a step takes compiled and not, and after how many steps compilation has paid."""
    began = time.perf_counter()
    with selecting(selection):
        computation.comparable(computation.run())
    compiled = time.perf_counter() - began
    _log.info("%s: %s", COMPILED, break_even(plain, compiled))


def break_even(plain: float, compiled: float, compilation: float = 30.0) -> str:
    """After how many steps compilation, which takes half a minute, has paid."""
    gain = plain - compiled
    times = f"a step takes {compiled:.3g} s instead of {plain:.3g} s"
    if gain <= 0:
        return f"{times} here, so that it does not pay"
    return f"{times}, so that it pays after about {compilation / gain:.0f} steps"

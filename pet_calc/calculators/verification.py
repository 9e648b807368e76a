"""Accelerated kernels are believed when they have agreed with the reference on the user's atoms.

The first evaluation that takes an accelerated path (`pet_calc.kernels.paths`) is done again by the
reference. Where the two differ by more than rounding explains, the calculator goes without that
path from then on, says so once, and answers with what the reference gave.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import torch

from pet_calc.errors import PetCalcError
from pet_calc.geometry import Edges, System
from pet_calc.kernels.paths import COMPILED, Paths, Precision, following
from pet_calc.models import EnergyModel, Results
from pet_calc.models.committee import Evaluation

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
    """That of the least exact of some paths of a model in `dtype`."""
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


class SelfCheck:
    """Which accelerated paths one calculator believes.

    Attributes
    ----------
    found : dict
        None for each path that agreed with the reference; else why it is not taken any more.
    """

    def __init__(self) -> None:
        self.found: dict[str, str | None] = {}
        self._potentials: object = None

    @property
    def refused(self) -> frozenset[str]:
        """Paths that are not taken any more."""
        return frozenset(path for path, reason in self.found.items() if reason is not None)

    def evaluate(
        self, evaluation: Evaluation, model: EnergyModel, system: System, edges: Edges,
        potentials: Callable[[], object],
    ) -> Results:  # fmt: skip
        """Results of `evaluation`; by the reference if a path that is taken now disagrees.

        Parameters
        ----------
        evaluation, model, system, edges
        potentials : callable
            What the calculator computes with; of another one nothing is believed yet.
        """
        results, paths, problem = attempt(evaluation, model, system, edges, self.refused)
        if paths.taken and (current := potentials()) != self._potentials:
            self._potentials = current
            self.found = {path: self.found[path] for path in self.refused}
        new = [path for path in paths.taken if path not in self.found]
        if not new:
            if problem is not None:
                raise problem
            assert results is not None
            return results
        began = time.perf_counter()
        with following(Paths(allowed=frozenset())):
            reference = evaluation(model, system, edges)
        finite = bool(torch.isfinite(reference.energies).all())
        if reference.forces is None or not finite:
            return reference  # nothing to compare with; the caller refuses what is not finite
        seconds = time.perf_counter() - began
        believed = frozenset(path for path, reason in self.found.items() if reason is None)
        if results is not None and not disagreement(results, reference, allowed_by(paths, model)):
            self.found |= dict.fromkeys(new)
            if COMPILED in new:
                tell_break_even(evaluation, model, system, edges, paths, seconds)
            return results
        reasons: dict[str, str | None] = {}
        for path in new:
            alone, paths, problem = attempt(
                evaluation, model, system, edges, frozenset(), believed | {path}
            )
            if path not in paths.taken:
                continue
            reasons[path] = (
                f"{type(problem).__name__}: {problem}"
                if alone is None
                else disagreement(alone, reference, allowed_by(paths, model))
            )
        if not any(reasons.values()):
            reasons = dict.fromkeys(new, "it does not together with the others")
        for path, reason in reasons.items():
            if reason is not None:
                tell_refusal(path, reason)
        self.found |= reasons
        return reference


def allowed_by(paths: Paths, model: EnergyModel) -> Tolerance:
    """The tolerance of what was taken."""
    return tolerance(model.dtype, list(paths.taken.values()))


def attempt(
    evaluation: Evaluation,
    model: EnergyModel,
    system: System,
    edges: Edges,
    refused: frozenset[str],
    allowed: frozenset[str] | None = None,
) -> tuple[Results | None, Paths, Exception | None]:
    """Results, or the error that an accelerated path ended with, and the paths taken.

    Errors of the structure, and those of memory, are raised.
    """
    paths = Paths(allowed, refused)
    try:
        with following(paths):
            return evaluation(model, system, edges), paths, None
    except (PetCalcError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a compiler that fails has many names for it
        if not paths.taken:
            raise
        return None, paths, error


def tell_refusal(path: str, reason: str) -> None:
    """Say once that a calculator goes without a path."""
    warnings.warn(
        f"this calculator goes without {path}, which does not agree with the reference on this "
        f"structure: {reason}; results are those of the reference",
        stacklevel=2,
    )


def tell_break_even(
    evaluation: Evaluation,
    model: EnergyModel,
    system: System,
    edges: Edges,
    paths: Paths,
    plain: float,
) -> None:
    """Log what a step takes compiled and not, and after how many steps compilation has paid."""
    began = time.perf_counter()
    with following(Paths(refused=paths.refused)):
        float(evaluation(model, system, edges).energies.sum())
    compiled = time.perf_counter() - began
    _log.info("%s: %s", COMPILED, break_even(plain, compiled))


def break_even(plain: float, compiled: float, compilation: float = 30.0) -> str:
    """After how many steps compilation, which takes half a minute, has paid."""
    gain = plain - compiled
    times = f"a step takes {compiled:.3g} s instead of {plain:.3g} s"
    if gain <= 0:
        return f"{times} here, so that it does not pay"
    return f"{times}, so that it pays after about {compilation / gain:.0f} steps"

"""Dipoles, polarizabilities and other tensors of structures from a head on a PET."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from pet_calc.calculators.validation import require_elements, require_state
from pet_calc.geometry import Edges
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.io.structures.separation import require_separation
from pet_calc.models.ecse.representations import cartesian_basis, from_cartesian, to_cartesian
from pet_calc.models.ecse.ridge import cross_validated_ridge, fitted_columns
from pet_calc.models.ecse.tensors import (
    TensorEnsemble,
    TensorHead,
    evaluate_tensor,
    head_shapes,
)
from pet_calc.models.pet import PET
from pet_calc.neighbors import neighbor_list


@dataclass(frozen=True, eq=False)
class TensorProperty:
    """A tensor of one structure, with Cartesian indices.

    Attributes
    ----------
    total : array, shape (3,) or (3, 3)
    atomic : array, shape (n_atoms, 3) or (n_atoms, 3, 3)
        Contributions of atoms, which add up to it.
    derivative : array or None, shape (n_atoms, 3, 3) or (n_atoms, 3, 3, 3)
        By the position of each atom (second index), per Å. Of a dipole in e Å these are the atomic
        polar tensors (Born effective charges) in e: [i, a, b] is ∂μ_b / ∂r_ia.
    """

    total: NDArray[np.float64]
    atomic: NDArray[np.float64]
    derivative: NDArray[np.float64] | None


def fit_tensor_head(
    model: PET,
    structures: Sequence[Atoms],
    values: ArrayLike,
    *,
    irreps: str = "1o",
    quantity: str = "",
    unit: str = "",
    ridge: float | None = None,
    mode: str = "auto",
) -> TensorHead:
    """A head whose totals meet `values`, by ridge regression on the features of `model`.

    Parameters
    ----------
    model : PET
        Its weights are left as they are.
    structures : sequence of Atoms
    values : array, shape (n_structures, 3) or (n_structures, 3, 3)
        Totals. A dipole must be independent of the origin: of structures without net charge.
    irreps : str
        "1o" for vectors, "0e + 2e" for symmetric tensors.
    quantity, unit : str
        Kept with the head.
    ridge : float, optional
        Strength of the regularization, relative to the mean square of the features. By default the
        one with the least error in five-fold cross-validation.
    mode : {"auto", "local", "structure"}

    Raises
    ------
    ValueError
        For values of another shape, or that are not finite; for fewer than five structures
        without `ridge`.
    """
    targets = torch.as_tensor(np.asarray(values, dtype=np.float64))
    shape = (len(structures), *cartesian_basis(irreps).shape[1:])
    if tuple(targets.shape) != shape or not bool(targets.isfinite().all()) or not len(structures):
        raise ValueError(
            f"`values` must be finite numbers of shape {shape}, one entry for each structure, got "
            f"shape {tuple(targets.shape)}"
        )
    rows = []
    for atoms in structures:
        ensemble, edges = ensemble_of(model, atoms, mode)
        rows.append(ensemble.design(edges, irreps).cpu())
    design, components = torch.cat(rows), from_cartesian(targets, irreps)
    if ridge is None:
        ridge = cross_validated_ridge(design, components)
    solution = fitted_columns(design, components, ridge)
    shape, edge_shape = head_shapes(model, irreps)
    weight, edge_weight = solution.split([shape[0] * shape[1], edge_shape[0] * edge_shape[1]])
    return TensorHead(
        irreps, weight.reshape(shape), edge_weight.reshape(edge_shape), quantity, unit
    )


def tensor_property(
    model: PET, head: TensorHead, atoms: Atoms, *, derivative: bool = False, mode: str = "auto"
) -> TensorProperty:
    """Prediction of a head for a structure; it turns and reflects exactly with it.

    Parameters
    ----------
    model : PET
        The one that the head was fitted to.
    head : TensorHead
    atoms : Atoms
    derivative : bool
        By the positions of the atoms, too.
    mode : {"auto", "local", "structure"}
        As the head was fitted.
    """
    ensemble, edges = ensemble_of(model, atoms, mode)
    found = evaluate_tensor(ensemble, head, edges, derivative=derivative)

    def array(components: torch.Tensor) -> NDArray[Any]:
        return to_cartesian(components, head.irreps).cpu().numpy()

    by_position = None if found.derivative is None else array(found.derivative)
    return TensorProperty(array(found.total)[0], array(found.atomic), by_position)


def ensemble_of(model: PET, atoms: Atoms, mode: str) -> tuple[TensorEnsemble, Edges]:
    """The model of one structure, and its edges."""
    device = next(model.parameters()).device
    system = system_from_atoms(atoms, device)
    require_state(atoms, model, "the model")
    require_elements(atoms, model.atomic_numbers, "the model")
    edges = neighbor_list(system, model.cutoff)
    require_separation(system, edges)
    return TensorEnsemble(model, system, mode), edges

r"""Symmetry operations of a structure, by which whole-structure views repeat each other.

A view V of a structure, with coordinates x' = x V, is equivalent to the view R V if the operation
x → R x + t maps the structure on itself: the backbone sees the same coordinates in both, with the
atoms renamed. With the pooled weights w of all atoms' frames it suffices to evaluate one view of
each class c,

.. math:: E = \sum_c W_c \, E(x V_c), \qquad W_c = \sum_{k \in c} w_k

Its derivatives have three parts. Those through the weights and through the views are summed over
all views of a class, V_c = Σ_k (w_k / W_c) R_kᵀ V_k, which is the same matrix for all of them.
What is left, the derivative at a fixed view, is a sum over the class of the same vectors turned and
renamed, hence the mean over the point group: forces, stress and per-atom energies of the sum over
classes are averaged over the operations at the end (`averaged`). The other two parts are
symmetric already, and the mean leaves them as they are.

Pure translations map a view on itself, so one operation for each rotation is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pet_calc.geometry import System
from pet_calc.geometry.cell import matrix_from_voigt, voigt_from_matrix
from pet_calc.kernels.ecse_frames.switches import segment_sum
from pet_calc.models.ecse.orientations import FRAME, Orientations
from pet_calc.models.interface import Results

#: Largest difference of the elements of two views that are taken for one. The energy differs by
#: less than this times its slope as the structure turns, an eV or so.
SAME_VIEW = 1e-10


@dataclass(frozen=True, eq=False)
class Operations:
    """The point group of one structure, and what it does to the atoms.

    Attributes
    ----------
    rotation : Tensor, shape (n_operations, 3, 3), float64
        Orthogonal matrices R of a group, which act on columns.
    image : Tensor, shape (n_operations, n_atoms), int64
        Atom on which each atom is mapped, apart from a lattice vector.
    """

    rotation: Tensor
    image: Tensor

    @classmethod
    def identity(cls, n_atoms: int, device: torch.device) -> Operations:
        """No symmetry but the identity."""
        return cls(
            torch.eye(3, dtype=torch.float64, device=device)[None],
            torch.arange(n_atoms, device=device)[None],
        )

    @property
    def proper(self) -> Operations:
        """Those without reflection, a group as well."""
        keep = torch.linalg.det(self.rotation) > 0
        return Operations(self.rotation[keep], self.image[keep])


def merged(views: Orientations, operations: Sequence[Operations]) -> Orientations:
    """One view of each class of frames that a structure's operations map on each other.

    Parameters
    ----------
    views : Orientations
        Groups are systems.
    operations : sequence of Operations
        Of each system.

    Returns
    -------
    Orientations
        Weights summed and matrices pulled back as in the module's formula; axial and isotropic
        views are left as they are.
    """
    whole = views.matrix * mirror(views)
    pulled = torch.empty_like(whole)
    for system, operation in enumerate(operations):
        here = torch.nonzero(views.group == system)[:, 0]
        back = canonical(whole.detach()[here], operation.rotation)
        pulled = pulled.index_put((here,), back.transpose(1, 2) @ whole[here])
    alike, n_classes = classes(pulled.detach(), views)
    weight = segment_sum(views.weight, alike, n_classes)
    share = views.weight.detach() / weight.detach()[alike]
    mean = segment_sum(share[:, None, None] * pulled, alike, n_classes)
    # of views that are alone, the original: axial ones are no orthogonal matrices
    first = torch.full((n_classes,), len(alike), device=alike.device).scatter_reduce(
        0, alike, torch.arange(len(alike), device=alike.device), "amin"
    )
    kind = views.kind[first]
    frame = kind == FRAME
    found = Orientations(
        group=views.group[first],
        weight=weight,
        matrix=torch.where(frame[:, None, None], mean, views.matrix[first]),
        sign=torch.where(frame, torch.ones_like(views.sign[first]), views.sign[first]),
        kind=kind,
    )
    return found.select(torch.argsort(found.group, stable=True))


def mirror(views: Orientations) -> Tensor:
    """Signs (n_views, 1, 3) of the columns of each view."""
    one = torch.ones_like(views.sign)
    return torch.stack([one, views.sign, one], dim=-1)[:, None, :]


def canonical(views: Tensor, rotation: Tensor) -> Tensor:
    """The operation R (n_views, 3, 3) for which Rᵀ V is the same for all V of a class.

    That is the one which makes a fixed linear function of Rᵀ V largest; its values differ between
    the elements of a class, since the coefficients have no symmetry.
    """
    coefficients = torch.tensor(
        [[1.0, 0.7310585, -0.3289711], [0.4142136, -0.8813736, 0.2679492], [-0.1591549, 0.5772157,
         -0.6180340]], dtype=views.dtype, device=views.device,
    )  # fmt: skip
    value = torch.einsum("rab,bc,nac->nr", rotation, coefficients, views)
    return rotation[value.argmax(dim=1)]


def classes(pulled: Tensor, views: Orientations) -> tuple[Tensor, int]:
    """Class of each view, and their number; frames of one system that agree are in one.

    Rounding can at worst leave two classes apart that are one, which costs an evaluation.
    """
    n = len(pulled)
    device = pulled.device
    alone = torch.where(views.kind == FRAME, 0, 1 + torch.arange(n, device=device))
    grid = torch.round(pulled.reshape(n, 9) / 1e-6 + 0.2718282).to(torch.int64)
    key = torch.cat([grid, views.group[:, None], alone[:, None]], dim=1)
    _, label = torch.unique(key, dim=0, return_inverse=True)
    first = torch.full((int(label.max()) + 1,), n, device=device).scatter_reduce(
        0, label, torch.arange(n, device=device), "amin"
    )
    apart = (pulled - pulled[first[label]]).abs().amax(dim=(1, 2)) > SAME_VIEW
    label = torch.where(apart, len(first) + torch.arange(n, device=device), label)
    unique, label = torch.unique(label, return_inverse=True)
    return label, len(unique)


def averaged(results: Results, system: System, operations: Sequence[Operations]) -> Results:
    """Results of a sum over classes of views, averaged over the operations of each system."""
    energies, forces, stress = results.energies, results.forces, results.stress
    for k, found in enumerate(operations):
        n = len(found.rotation)
        if n == 1:
            continue
        atoms = torch.nonzero(system.system_index == k)[:, 0]
        # the image of each atom, operation by operation
        target = atoms[found.image].reshape(-1)
        turned = energies[atoms].repeat(n) / n
        energies = energies.index_put((atoms,), turned.new_zeros(())).index_add(0, target, turned)
        if forces is not None:
            turned = torch.einsum("rab,nb->rna", found.rotation, forces[atoms]) / n
            forces = forces.index_put((atoms,), turned.new_zeros(())).index_add(
                0, target, turned.reshape(-1, 3)
            )
        if stress is not None:
            matrix = matrix_from_voigt(stress[k])
            mean = torch.einsum("rab,bc,rdc->ad", found.rotation, matrix, found.rotation) / n
            stress = stress.index_put(
                (torch.tensor([k], device=stress.device),), voigt_from_matrix(mean)
            )
    return replace(results, energies=energies, forces=forces, stress=stress)

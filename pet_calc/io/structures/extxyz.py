"""Extended XYZ in full precision; ASE's own writer rounds positions to 1e-8 Å."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.extxyz import output_column_format
from ase.stress import voigt_6_to_full_3x3_stress

#: Arrays that stay true when atoms move; others, such as labels of another method, do not.
KEPT_ARRAYS = ("tags", "initial_magmoms", "initial_charges", "masses")


def extxyz_frame(atoms: Atoms, info: Mapping[str, Any] | None = None) -> str:
    """One frame of an extended XYZ file with all digits, as text.

    Energy (eV), forces (n_atoms, 3) in eV/Å and stress (eV/Å³, tension positive) are taken from
    the results of the calculator, without a new calculation. Of ``atoms.info`` only words, whole
    numbers and truth values are written, and of the arrays only those of `KEPT_ARRAYS`: labels
    that were read for another geometry would be wrong here.

    Parameters
    ----------
    atoms : Atoms
        ``FixAtoms`` constraints become the column ``move_mask``.
    info : mapping, optional
        Further entries of the comment line.
    """
    frame = Atoms(
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=atoms.cell,
        pbc=atoms.pbc,
        constraint=atoms.constraints,
    )
    kept = {k: v for k, v in atoms.info.items() if isinstance(v, str | int | np.bool_ | np.integer)}
    frame.info = {k: _one_line(v) for k, v in {**kept, **(info or {})}.items() if v != ""}
    columns = {
        "symbols": np.array(atoms.get_chemical_symbols()),
        "positions": atoms.positions,
        **{name: atoms.arrays[name] for name in KEPT_ARRAYS if name in atoms.arrays},
    }
    results = {} if atoms.calc is None else atoms.calc.results
    if "energy" in results:
        frame.info["energy"] = float(results["energy"])
    if "stress" in results:
        frame.info["stress"] = voigt_6_to_full_3x3_stress(np.asarray(results["stress"]))
    if "forces" in results:
        columns["forces"] = np.asarray(results["forces"])
    free = np.ones(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if constraint.todict()["name"] == "FixAtoms":
            free[constraint.get_indices()] = False
    if not free.all():
        columns["move_mask"] = free
    for name, values in columns.items():
        if name not in ("symbols", "positions"):
            frame.arrays[name] = values
    comment, _, _, form = output_column_format(frame, list(columns), columns, write_info=True)
    form = form.replace("%16.8f", "%.17g")
    rows = zip(
        *(
            column
            for values in columns.values()
            for column in (values.T if values.ndim == 2 else [values])
        ),
        strict=True,
    )
    return f"{len(atoms)}\n{comment}\n" + "".join(form % tuple(row) for row in rows)


def _one_line(value: Any) -> Any:
    """Text as ASE reads it back: one line, with backslashes written twice."""
    if isinstance(value, str):
        return " ".join(value.splitlines()).replace("\\", "\\\\")
    return value

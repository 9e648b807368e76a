"""Verification of a potential: its digests, and the results recorded when it was published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from pet_calc.errors import IntegrityError
from pet_calc.io.models.expected import EXPECTED, Deviation, compare_expected, write_expected
from pet_calc.io.models.files import WEIGHTS, sha256
from pet_calc.io.models.weights import read_config
from pet_calc.pretrained.loading import load, resolve


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes
    ----------
    digests : dict
        File name to (recorded digest, found digest).
    deviations : dict
        Precision to deviations from ``expected.json``; empty where a digest is wrong.
    """

    digests: dict[str, tuple[str, str]]
    deviations: dict[str, list[Deviation]]

    def require(self, name: str) -> None:
        """Raise `IntegrityError` unless everything agrees."""
        for file, (recorded, found) in self.digests.items():
            if recorded != found:
                raise IntegrityError(
                    f"{file} of {name} must have the SHA-256 {recorded}, but has {found}: it is "
                    f"damaged or was exchanged; install the package again"
                )
        for dtype, deviations in self.deviations.items():
            for d in deviations:
                if not d.within:
                    raise IntegrityError(
                        f"{name} must reproduce its recorded results, but in {dtype} the "
                        f"{d.quantity} of {d.structure!r} is off by {d.found:.3g} (limit "
                        f"{d.tolerance:.3g}); use the versions of pet_calc and torch that it was "
                        f"published with, and report this"
                    )


def verify(
    name_or_path: str | Path, dtypes: Sequence[str] = ("float32", "float64")
) -> Verification:
    """Compare digests with the recorded ones and results with ``expected.json``.

    A folder outside of the index may lack ``expected.json``; then the digest is compared and the
    model is loaded.
    """
    entry = resolve(name_or_path)
    recorded = entry.sha256 or {WEIGHTS: read_config(entry.folder)["weights_sha256"]}
    digests = {file: (d.lower(), sha256(entry.folder / file)) for file, d in recorded.items()}
    if any(a != b for a, b in digests.values()):
        return Verification(digests, {})
    if not entry.sha256 and not (entry.folder / EXPECTED).is_file():
        load(entry)  # there is nothing to compare with, but it must be readable
        return Verification(digests, {})
    deviations = {
        dtype: compare_expected(entry.folder, load(entry, dtype).model) for dtype in dtypes
    }
    return Verification(digests, deviations)


def record(folder: Path, structures: Sequence[Atoms]) -> Path:
    """Record a potential's results for fixed structures in its ``expected.json``; returns its path.

    Parameters
    ----------
    folder : Path
        Folder of the potential, not yet published: a published one never changes.
    structures : sequence of ase.Atoms
        Named by ``atoms.info["name"]``, else by number and formula. Three of different kinds are
        usual, one of them periodic in three dimensions.

    Raises
    ------
    PotentialNotFoundError, IntegrityError, CheckpointError
        See `load`.
    ValueError
        If there is no structure, or two have one name.
    """
    named = {
        str(atoms.info.get("name", f"{k}-{atoms.get_chemical_formula()}")): atoms
        for k, atoms in enumerate(structures)
    }
    if not named or len(named) < len(structures):
        raise ValueError(
            f"results are recorded of one or more structures with different names, got "
            f"{len(structures)} structure(s) with {len(named)} name(s)"
        )
    write_expected(folder, load(folder, "float64").model, named)
    return folder / EXPECTED

"""The public PET family: names, and the files of the hub that they stand for.

The models are in one repository of the Hugging Face hub, one checkpoint each under
``models/<family>-<size>-v<version>.ckpt`` [https://huggingface.co/lab-cosmo/upet]. `PUBLISHED` pins
what a name without a version means, so that the same version of pet_calc gives the same numbers
whatever is published later. A later version can be asked for by its full name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

REPOSITORY: Final = "lab-cosmo/upet"


@dataclass(frozen=True)
class PublishedPET:
    """A published model.

    Attributes
    ----------
    name : str
        With its version, such as "pet-mad-s-v1.6.0".
    method : str
        First-principles method of its data; empty for a version that this package does not know.
    purpose : str
        What it is meant for.
    """

    name: str
    method: str
    purpose: str

    @property
    def model(self) -> str:
        """The name without its version."""
        return self.name.rpartition("-v")[0]

    @property
    def path(self) -> str:
        """Place of the checkpoint in the repository."""
        return f"models/{self.name}.ckpt"


# sizes with their versions, method, purpose; of several versions of one model the newest first
_FAMILIES: Final = (
    ("pet-mad", {"xs": "1.6.0", "s": "1.6.0", "m": "1.6.0"}, "r2SCAN",
     "materials, surfaces, molecules (102 elements)"),
    ("pet-mad", {"xs": "1.5.0", "s": "1.5.0"}, "r2SCAN", "as above, without catalytic surfaces"),
    ("pet-mad", {"s": "1.0.2"}, "PBEsol", "materials, molecules (85 elements)"),
    ("pet-oam", {"l": "0.1.0", "xl": "1.0.0"}, "PBE (Materials Project)",
     "materials discovery (89 elements)"),
    ("pet-omat", dict.fromkeys(("xs", "s", "m", "l", "xl"), "1.0.0"), "PBE",
     "materials (89 elements)"),
    ("pet-omatpes", {"l": "0.1.0"}, "r2SCAN", "materials (89 elements)"),
    ("pet-omad", {"xs": "1.0.0", "s": "1.0.0", "l": "0.1.0"}, "PBEsol",
     "materials, molecules (85 elements)"),
    ("pet-spice", {"s": "0.2.0", "l": "0.2.0"}, "ωB97M-D3", "molecules (17 elements)"),
    ("pet-omol", {"s": "1.0.0", "m": "1.0.0", "l": "1.0.0"}, "ωB97M-V",
     "molecules, charged and open-shell too (83 elements)"),
    ("pet-mols", {"s": "1.1.0"}, "PBE0+MBD", "organic molecular crystals (12 elements)"),
    ("pet-mols", {"s": "1.0.0"}, "PBE0+MBD", "organic molecular crystals (12 elements)"),
)  # fmt: skip

PUBLISHED: Final[tuple[PublishedPET, ...]] = tuple(
    PublishedPET(f"{family}-{size}-v{version}", method, purpose)
    for family, sizes, method, purpose in _FAMILIES
    for size, version in sizes.items()
)
"""Known models; of several versions of one model the newest comes first."""


def find_published(name: str) -> PublishedPET | None:
    """The published model of that name, in any case of letters; None if there is none.

    Parameters
    ----------
    name : str
        "pet-mad-s" is the newest version in the list of this package, "pet-mad-s-v1.5.0" that
        version. A version that it does not know is looked for on the hub.
    """
    found = re.fullmatch(r"(pet-\w+-(?:xs|s|m|l|xl))(?:-v?(\d+\.\d+\.\d+))?", name.lower())
    if found is None:
        return None
    model, version = found.groups()
    versions = [p for p in PUBLISHED if p.model == model]
    if not versions:
        return None
    if version is None:
        return versions[0]
    full = f"{model}-v{version}"
    return next((p for p in versions if p.name == full), PublishedPET(full, "", ""))

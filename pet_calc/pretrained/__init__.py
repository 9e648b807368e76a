"""Potentials by name or path: name -> index and card -> checked SHA-256 -> model.

``index.toml`` lists what ships with pet_calc. The names of the public PET family stand for files of
a hub, which are downloaded once (`pet_calc.io.foreign.hub`). Nothing is unpickled. Listing and
reading cards imports neither torch nor ASE.
"""

from typing import TYPE_CHECKING

from pet_calc.lazy import lazy_names

if TYPE_CHECKING:
    from pet_calc.pretrained.card import CARD, Card, read_card
    from pet_calc.pretrained.index import (
        INDEX,
        PotentialEntry,
        find_property_model,
        find_shipped,
        list_potentials,
        split_version,
    )
    from pet_calc.pretrained.loading import (
        LoadedPotential,
        choose_for,
        in_order,
        load,
        resolve,
    )
    from pet_calc.pretrained.verification import Verification, record, verify

__all__ = [
    "CARD",
    "INDEX",
    "Card",
    "LoadedPotential",
    "PotentialEntry",
    "Verification",
    "choose_for",
    "find_property_model",
    "find_shipped",
    "in_order",
    "list_potentials",
    "load",
    "read_card",
    "record",
    "resolve",
    "split_version",
    "verify",
]

__getattr__ = lazy_names(__name__, "index", "card", "loading", "verification")

"""Where the images of every atom's neighbors lie in memory: padded slots, in few buckets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pet_calc.geometry import Bucket
from pet_calc.geometry.graph import bucket_boundaries


@dataclass(frozen=True, eq=False)
class ImageLayout:
    """Images of neighbors in padded slots; atoms are numbered by rising number of images.

    Attributes
    ----------
    buckets : tuple of Bucket
        Runs of atoms with one padded number of slots.
    atom_order : Tensor, shape (n_atoms,), int64
        The caller's number of each atom in the order used here.
    center, neighbor : Tensor, shape (n_slots,), int64
        Atoms of each slot in the order used here; a padding slot has its center as neighbor.
    source : Tensor, shape (n_slots,), int64
        The caller's number of the image in each slot; n_images marks padding.
    first_slot : Tensor, shape (n_atoms + 1,), int64
        Slots of atom i are first_slot[i] to first_slot[i + 1].
    """

    buckets: tuple[Bucket, ...]
    atom_order: Tensor
    center: Tensor
    neighbor: Tensor
    source: Tensor
    first_slot: Tensor

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.atom_order)


def image_layout(
    center: Tensor, neighbor: Tensor, n_atoms: int, *, max_padding: float = 0.05
) -> ImageLayout:
    """Arrange images into slots.

    Parameters
    ----------
    center, neighbor : Tensor, shape (n_images,), int64
        Atoms of each image, in any order; every atom is the center of one image at least.
    n_atoms : int
    max_padding : float
        Largest share of slots that may be padding.
    """
    device = center.device
    i, j = center.cpu().numpy(), neighbor.cpu().numpy()
    counts = np.bincount(i, minlength=n_atoms)
    if n_atoms and counts.min() == 0:
        raise ValueError(
            f"every atom must attend to an image, itself at least, but atom {counts.argmin()} has "
            f"none"
        )
    by_center = np.argsort(i, kind="stable")
    first = np.concatenate([[0], np.cumsum(counts)])[:-1]
    order = np.argsort(counts, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(n_atoms)

    buckets: list[Bucket] = []
    sources, centers = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    begin = n_slots = 0
    for end in bucket_boundaries(counts[order], max_padding) if n_atoms else []:
        width = int(counts[order[end - 1]])
        rows = order[begin:end]
        column = np.arange(width)
        filled = column[None, :] < counts[rows][:, None]
        place = np.where(filled, first[rows][:, None] + column, 0)
        sources.append(np.where(filled, by_center[place], len(i)).reshape(-1))
        centers.append(np.repeat(np.arange(begin, end), width))
        size = (end - begin) * width
        buckets.append(
            Bucket(slice(begin, end), slice(n_slots, n_slots + size), end - begin, width)
        )
        begin, n_slots = end, n_slots + size
    source, slot_center = np.concatenate(sources), np.concatenate(centers)
    slot_neighbor = slot_center.copy()
    filled = source < len(i)
    slot_neighbor[filled] = rank[j[source[filled]]]
    return ImageLayout(
        buckets=tuple(buckets),
        atom_order=torch.from_numpy(order).to(device),
        center=torch.from_numpy(slot_center).to(device),
        neighbor=torch.from_numpy(slot_neighbor).to(device),
        source=torch.from_numpy(source).to(device),
        first_slot=torch.from_numpy(np.searchsorted(slot_center, np.arange(n_atoms + 1))).to(
            device
        ),
    )

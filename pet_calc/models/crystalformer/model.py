"""Crystalformer [Taniai et al., ICLR 2024, arXiv:2403.11686] as a potential and as published.

Every atom attends to all periodic images of all atoms, with weights that fall off as Gaussians
whose widths the queries choose. As a potential, the images are those within a cutoff, each with a
weight that falls to zero smoothly there, and every atom attends to itself with weight 1, so that
energies are smooth functions of the positions, the same for every choice of the cell, and defined
for a free atom. The energy is a sum over atoms. Distances enter, and optionally directions in
local frames (`directions`): the model is exactly invariant under rotations and reflections. The
published form (`CrystalformerConfig.published`) differs in the choice of images, in two activation
functions, and in its mean over the atoms.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pet_calc.geometry import Edges, System, edge_vectors, gaussians
from pet_calc.models.crystalformer.attention import Block
from pet_calc.models.crystalformer.config import CrystalformerConfig
from pet_calc.models.crystalformer.images import Images, box_images, smooth_images
from pet_calc.models.crystalformer.reciprocal import Waves, box_waves, cast, smooth_waves
from pet_calc.models.pet.repulsion import ShortRangeRepulsion
from pet_calc.models.species import species_of, species_table


class Crystalformer(nn.Module):
    """Crystalformer; with the readout "atoms" an `EnergyModel`.

    Parameters
    ----------
    config : CrystalformerConfig
    dtype : torch.dtype
        Floating-point type of weights and computation; energies are summed in float64.

    Attributes
    ----------
    reference_energies : Tensor, shape (n_species,), float64
        Energy of an atom of each element in eV, added to the network's energy.
    energy_scale : Tensor, scalar, float64
        Factor on the network's energy.
    target_scale, target_mean : Tensor, shape (n_targets,), float64
        Factor on the network's properties and what is then added (readout "mean").
    """

    reference_energies: Tensor
    energy_scale: Tensor
    target_scale: Tensor
    target_mean: Tensor
    species_of_number: Tensor
    radial_centers: Tensor

    def __init__(self, config: CrystalformerConfig, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        n_species = len(config.elements)
        self.embedding = nn.Embedding(n_species, config.d_model)
        self.blocks = nn.ModuleList(Block(config, k) for k in range(config.num_layers))
        self.head = nn.Sequential(
            nn.Linear(config.d_model, config.d_head),
            nn.SiLU() if config.activation == "SiLU" else nn.ReLU(),
            nn.Linear(config.d_head, max(1, len(config.targets))),
        )
        std = config.d_model**-0.5 * (9 * config.num_layers) ** -0.25
        nn.init.normal_(self.embedding.weight, std=std if config.normalization == "none" else 1.0)
        for block in self.blocks:
            assert isinstance(block, Block)
            block.initialize(config.num_layers)
        self.to(dtype)
        # what follows stays in float64
        repulsion = config.short_range_repulsion
        self.repulsion = ShortRangeRepulsion(n_species) if repulsion else None
        self.register_buffer("species_of_number", species_table(config.elements), persistent=False)
        spacing = config.radial_max / max(1, config.num_radial)
        centers = spacing * torch.arange(1, config.num_radial + 1, dtype=torch.float64)
        self.register_buffer("radial_centers", centers, persistent=False)
        if config.readout == "atoms":
            self.register_buffer("reference_energies", torch.zeros(n_species, dtype=torch.float64))
            self.register_buffer("energy_scale", torch.ones((), dtype=torch.float64))
        else:
            n = len(config.targets)
            self.register_buffer("target_scale", torch.ones(n, dtype=torch.float64))
            self.register_buffer("target_mean", torch.zeros(n, dtype=torch.float64))

    @property
    def cutoff(self) -> float:
        """Radius in Å within which neighbors are listed."""
        return self.config.cutoff

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Elements covered, ascending."""
        return self.config.elements

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.embedding.weight.dtype

    @property
    def last_layers(self) -> tuple[nn.Linear, ...]:
        """The last linear maps, which the energy is a sum of."""
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        return (last,)

    def energies(self, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64; see `EnergyModel.energies`."""
        config = self.config
        if config.readout != "atoms":
            raise ValueError(
                f"this model predicts {', '.join(config.targets)} of whole crystals and is no "
                f"potential; call `properties`"
            )
        species = self.species(system.numbers)
        images = self.images(edges, vectors, system.n_atoms)
        network = self.head(self.features(species, images, self.waves(system, images)))[:, 0]
        energies = self.reference_energies[species] + self.energy_scale * network.double()
        if self.repulsion is not None:
            distances = vectors.double().square().sum(-1).sqrt()
            energies = energies + self.repulsion(species, edges, distances)
        return energies

    def properties(self, system: System, edges: Edges | None = None) -> Tensor:
        """Properties of each system, (n_systems, n_targets), float64, in the targets' units.

        Parameters
        ----------
        system : System
            Its positions and cell may carry gradients.
        edges : Edges, optional
            Pairs within the cutoff; needed by models with smooth images.
        """
        config = self.config
        if config.readout != "mean":
            raise ValueError("this model is a potential and predicts no properties")
        if config.images == "box":
            images = box_images(system, config.image_range, self.dtype)
        elif edges is None:
            raise ValueError("`edges` must be given to a model with smooth images")
        else:
            vectors = edge_vectors(system, edges).to(self.dtype)
            images = self.images(edges, vectors, system.n_atoms)
        features = self.features(self.species(system.numbers), images, self.waves(system, images))
        total = features.new_zeros(system.n_systems, config.d_model)
        total = total.index_add(0, system.system_index, features)
        counts = torch.bincount(system.system_index, minlength=system.n_systems)
        out = self.head(total / counts[:, None]).double()
        return out * self.target_scale + self.target_mean

    def waves(self, system: System, images: Images) -> list[Waves]:
        """What heads in reciprocal space need; nothing where there are none."""
        config = self.config
        if config.domain == "real":
            return []
        rows = torch.argsort(images.layout.atom_order)
        if config.images == "box":
            found = box_waves(system, rows, config.image_range)
        else:
            found = smooth_waves(
                system, rows, config.reciprocal_cutoff, config.reciprocal_cutoff_width
            )
        return cast(found, self.dtype)

    def species(self, numbers: Tensor) -> Tensor:
        """Index of each atom's element in ``config.elements``."""
        return species_of(self.species_of_number, numbers, self.config.elements, "Crystalformer")

    def images(self, edges: Edges, vectors: Tensor, n_atoms: int) -> Images:
        """Smooth images of the edges."""
        c = self.config
        return smooth_images(
            edges, vectors, n_atoms, c.cutoff, c.cutoff_width, c.num_angular, c.frames
        )

    def basis(self, images: Images) -> Tensor:
        """What encodes images in the values, (n_slots, num_encodings), for all heads and layers.

        Gaussians of the distances, then the encoding of the directions.
        """
        spacing = self.config.radial_max / max(1, self.config.num_radial)
        radial = gaussians(images.distances, self.radial_centers, 0.5 / spacing**2)
        return torch.cat([radial, images.directions], dim=1) if self.config.num_angular else radial

    def features(
        self, species: Tensor, images: Images, waves: list[Waves], *, freeze: bool = False
    ) -> Tensor:
        """Features (n_atoms, d_model) behind the last block, in the caller's order of atoms.

        Parameters
        ----------
        species : Tensor, shape (n_atoms,)
        images : Images
        waves : list of Waves
        freeze : bool
            Standardize the widths of each layer on the way.
        """
        order = images.layout.atom_order
        basis = self.basis(images)
        x = self.embedding(species[order])
        for block in self.blocks:
            assert isinstance(block, Block)
            if freeze:
                block.attention.freeze(block.norm1(x))
            x = block(x, images, basis, waves)
        return torch.zeros_like(x).index_copy(0, order, x)

    @torch.no_grad()
    def freeze_widths(self, system: System, edges: Edges | None = None) -> None:
        """Standardize what the queries say of the widths, over the atoms of a batch.

        The public code does so in the first step of the training and keeps the numbers.
        """
        config = self.config
        if config.images == "box":
            images = box_images(system, config.image_range, self.dtype)
        else:
            assert edges is not None
            vectors = edge_vectors(system, edges).to(self.dtype)
            images = self.images(edges, vectors, system.n_atoms)
        self.features(self.species(system.numbers), images, self.waves(system, images), freeze=True)

"""Published formats of PET: checkpoints, migrations, pet-kokkos, the first public PET."""

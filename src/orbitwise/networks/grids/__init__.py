"""Networks on voxel grids."""

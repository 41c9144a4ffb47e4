"""Named studies: grids of recipes x seeds."""

"""Files of conformers and of forces, read with errors that name the place."""

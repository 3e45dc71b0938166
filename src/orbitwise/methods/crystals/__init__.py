"""`orbitwise crystals` and the trainings of crystal structures."""

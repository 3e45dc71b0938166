"""`orbitwise conformers`: a Boltzmann ensemble of one molecule."""

"""What a symmetry is: Haar sampling, composition, inverse, action. All are names of
``orbitwise``."""

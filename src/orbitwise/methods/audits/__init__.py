"""`orbitwise audit`: the equivariance error of anyone's model."""

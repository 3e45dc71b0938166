"""The equivariance error along a training."""

"""What is done along an orbit: the posterior given a noised sample, alignment, averages."""

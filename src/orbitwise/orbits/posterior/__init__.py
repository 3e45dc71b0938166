"""The posterior over a group given a noised sample: ``ow.orbit_posterior`` and its solvers."""

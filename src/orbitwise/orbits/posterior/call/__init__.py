"""What ``ow.orbit_posterior`` was called with, and what it hands back: everything but the solving."""

"""What ``ow.orbit_posterior`` was called with and hands back: everything but the solving."""

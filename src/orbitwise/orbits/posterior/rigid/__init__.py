"""The posterior over the rotation that rigid frames share: ``ow.frame_posterior``."""

"""One conformer model for many molecules."""

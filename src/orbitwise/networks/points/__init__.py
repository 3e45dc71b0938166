"""Networks on labelled points in space."""

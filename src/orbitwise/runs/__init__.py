"""What a run is: configuration, method, stages, provenance, outcome."""

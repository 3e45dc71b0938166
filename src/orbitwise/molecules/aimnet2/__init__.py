"""AIMNet2, a neural-network potential near density-functional theory, as a batched torch energy."""

"""The diffusion model that may run beside the search: learn, weigh, draw, relax."""

"""Exact orbit targets in your own training loop: nothing else of the package is needed.

A toy denoiser learns one rigid "molecule" in every orientation. Only the target line differs from
plain augmentation; with it the same network sees targets without the rotation's noise.
"""

import torch

import orbitwise as ow

generator = torch.Generator().manual_seed(0)
molecule = torch.randn(8, 3, generator=generator)
molecule -= molecule.mean(0)

group = ow.SO3()
process = ow.GaussianProcess.edm()
network = torch.nn.Sequential(torch.nn.Linear(25, 128), torch.nn.SiLU(), torch.nn.Linear(128, 24))
optimizer = torch.optim.Adam(network.parameters(), 1e-3)

losses = {"augmentation": [], "exact": []}
for _step in range(200):
    x1 = group.act(group.sample((64,), generator=generator), molecule.expand(64, 8, 3))
    t = torch.rand(64, generator=generator)
    xt = process.perturb(x1, t, generator=generator)

    target = ow.orbit_posterior(group, process, x1, xt, t).mean  # instead of x1

    scale = (1 + process.sigma(t)[:, None] ** 2).sqrt()  # inputs of order one at every noise level
    prediction = network(torch.cat([xt.flatten(1) / scale, t[:, None]], 1)).view_as(x1)
    loss = (prediction - target).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses["exact"].append(loss.item())
    losses["augmentation"].append((prediction - x1).square().mean().item())

last = {name: sum(values[-50:]) / 50 for name, values in losses.items()}
print(
    f"squared error to the exact target {last['exact']:.3f}, to the augmented one"
    f" {last['augmentation']:.3f}"
)

"""What AIMNet2 computes from distances: energies of atoms in their environment, and their charges.

D. M. Anstine, R. Zubatyuk and O. Isayev, Chem. Sci. 16, 10228 (2025). Every atom has features by
element, ``a: (B, N, 16, 16)`` (feature, radial shell), and a partial charge. Three times it sees
those of its neighbours within 5 Å, as sums over radial shells and the lengths of the vectors that
mixed shells give, and passes these to a perceptron, which changes features and charges; the last
one gives what the energy is read from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear

FEATURES = SHELLS = 16
CUTOFF = 5.0  # Å
CUTOFF_COULOMB = 4.6  # Å; nearer, the network has learnt the electrostatics
COULOMB = 14.3996452  # eV Å/e²
SMALL = 1e-6


@dataclass(frozen=True)
class NetworkTables:
    """``features: (N, 16, 16)`` of the atoms at the start; ``shells: (16,)`` Å and ``width`` of the
    radial functions; ``mix: (17, 16, 12)`` of the shells in vectors, features and then the charge;
    ``layers``: weights and biases of each perceptron, the last that of the energy."""

    features: Tensor
    shells: Tensor
    width: Tensor
    mix: Tensor
    layers: tuple[tuple[tuple[Tensor, Tensor], ...], ...]


def network_tables(w: dict[str, Tensor], species: Tensor) -> NetworkTables:
    """From the weights, for atomic numbers ``species: (N,)``."""

    def perceptron(name: str) -> tuple[tuple[Tensor, Tensor], ...]:
        at = range(0, 20, 2)  # between the layers stand their activations
        found = [k for k in at if f"{name}.{k}.weight" in w]
        return tuple((w[f"{name}.{k}.weight"], w[f"{name}.{k}.bias"]) for k in found)

    return NetworkTables(
        features=w["afv.weight"][species].unflatten(-1, (FEATURES, SHELLS)),
        shells=w["aev.shifts_s"],
        width=w["aev.eta_s"],
        mix=torch.cat([w["conv_a.agh"], w["conv_q.agh"]]),
        layers=(*(perceptron(f"mlps.{k}") for k in range(3)), perceptron("outputs.energy_mlp.mlp")),
    )


def network(
    t: NetworkTables, between: Tensor, distance: Tensor, charge: float
) -> tuple[Tensor, Tensor]:
    """Energies of the atoms in eV ``(B, N)`` and their charges ``(B, N)``, whose sum is ``charge``;
    from the vectors ``between: (B, N, N, 3)`` and ``distance: (B, N, N)``, beyond the cutoff on the
    diagonal."""
    size = distance.shape[:2]
    seen = environment(t, between, distance)
    a, q = t.features.expand(size[0], -1, -1, -1), None

    for k, layers in enumerate(t.layers[:3]):
        out = perceptron(gathered(t, seen, a, q), layers)
        out = out if k == 0 else gelu(out)
        if k < 2:
            change, softness, delta = out.split([1, 1, out.shape[-1] - 2], -1)
            q = change if q is None else q + change
            # the rest of the total charge goes where the network lets it
            share = softness.square()
            rest = charge - q.sum(1, keepdim=True)
            q = q + share * rest / (share.sum(1, keepdim=True) + SMALL)
            a = a + delta.unflatten(-1, (FEATURES, SHELLS))
    return perceptron(out, t.layers[3]).squeeze(-1), q.squeeze(-1)


def environment(t: NetworkTables, between: Tensor, distance: Tensor) -> Tensor:
    """Radial shells of every pair, and these times the components of its direction: ``(B, 16, 4 N,
    N)``."""
    cut = 0.5 + 0.5 * (math.pi * (distance / CUTOFF).clamp_max(1.0)).cos()
    radial = (-t.width * (distance[:, None] - t.shells[:, None, None]).square()).exp()
    radial = (radial * cut[:, None])[:, :, None]
    direction = (between / distance[..., None]).movedim(-1, 1)[:, None]
    return torch.cat([radial, radial * direction], 2).flatten(2, 3)


def gathered(t: NetworkTables, seen: Tensor, a: Tensor, q: Tensor | None) -> Tensor:
    """What each atom knows of itself and its neighbours, ``(B, N, 704)``, with charges 733."""
    b, n = a.shape[:2]
    sent = a.permute(0, 3, 1, 2)  # (B, shell, N, feature)
    if q is not None:
        sent = torch.cat([sent, q[:, None].expand(-1, SHELLS, -1, -1)], -1)
    sums = (seen @ sent).view(b, SHELLS, 4, n, sent.shape[-1])

    scalar = sums[:, :, 0].permute(0, 2, 3, 1)
    mixed = torch.einsum("bgcna,agh->bcnah", sums[:, :, 1:], t.mix[: sums.shape[-1]])
    vector = mixed.square().sum(1)

    parts = [a, scalar[:, :, :FEATURES], vector[:, :, :FEATURES]]
    if q is not None:
        parts += [q, scalar[:, :, FEATURES], vector[:, :, FEATURES]]
    return torch.cat([part.flatten(2) for part in parts], -1)


def perceptron(x: Tensor, layers: tuple[tuple[Tensor, Tensor], ...]) -> Tensor:
    for weight, bias in layers[:-1]:
        x = gelu(linear(x, weight, bias))
    return linear(x, *layers[-1])


def coulomb(q: Tensor, distance: Tensor, same: Tensor) -> Tensor:
    """The energy of the charges ``(B, N)`` beyond the network's reach, in eV ``(B,)``; ``same: (N,
    N)`` the diagonal, which does not count."""
    near = (distance / CUTOFF_COULOMB).clamp_max(1 - SMALL).square()
    far = 1 - (1 - 1 / (1 - near)).exp()
    pair = far * q[:, :, None] * q[:, None] / distance
    return 0.5 * COULOMB * pair.masked_fill(same, 0.0).double().sum((-1, -2))

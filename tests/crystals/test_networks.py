"""Networks for crystals: what they are invariant to, what they must see, and how elements are
placed."""

from __future__ import annotations

import pytest
import torch

from orbitwise.crystals import CrystalTransformer, CSPNet
from orbitwise.crystals.crystal import CrystalBatch
from orbitwise.crystals.elements import ElementFeatures

NETWORKS = {"cspnet": CSPNet, "transformer": CrystalTransformer}


def build(name: str, dtype=torch.float64, **options):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return NETWORKS[name](hidden=16, layers=2, times=8, **options).to(dtype)


def crystals(sizes=(5, 3, 1), dtype=torch.float64, prompt: int = 0) -> CrystalBatch:
    g = torch.Generator().manual_seed(0)
    b, n = len(sizes), max(sizes)
    mask = torch.arange(n) < torch.tensor(sizes)[:, None]
    frac = torch.rand(b, n, 3, generator=g, dtype=torch.float64) * mask[..., None]
    lattice = 4 * torch.eye(3) + torch.randn(b, 3, 3, generator=g, dtype=torch.float64) * 0.3
    species = torch.randint(1, 90, (b, n), generator=g) * mask
    text = (
        torch.randn(b, 1 + n, prompt, generator=g, dtype=torch.float64).to(dtype)
        if prompt
        else None
    )
    return CrystalBatch(frac.to(dtype), lattice.to(dtype), species, mask, text)


def call(net, batch, frac=None, cell=None, t=None):
    g = torch.Generator().manual_seed(1)
    dtype = batch.frac.dtype
    noisy = torch.randn(len(batch), 6, generator=g, dtype=torch.float64).to(dtype)
    times = torch.linspace(0.2, 0.8, len(batch), dtype=dtype)
    return net(
        batch.frac if frac is None else frac,
        noisy if cell is None else noisy + cell,
        times if t is None else times + t,
        batch,
    )


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_padding_and_whole_cells(name, dtype):
    batch, net = crystals(dtype=dtype), build(name, dtype)
    out = call(net, batch)
    assert out.frac.shape == batch.frac.shape and out.cell.shape == (3, 6)
    assert out.frac.dtype == out.cell.dtype == dtype
    assert out.frac[~batch.mask].abs().max() == 0 and out.frac[batch.mask].abs().max() > 1e-3
    tolerance = (
        {"rtol": 1e-3, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-11}
    )
    whole = call(net, batch, frac=batch.frac + torch.tensor([1.0, -2.0, 3.0], dtype=dtype))
    torch.testing.assert_close(whole.frac, out.frac, **tolerance)
    torch.testing.assert_close(whole.cell, out.cell, **tolerance)
    for i, size in enumerate(batch.atoms.tolist()):
        alone = CrystalBatch(
            *(v[i : i + 1] for v in (batch.frac, batch.lattice, batch.species, batch.mask))
        )
        alone = CrystalBatch(
            alone.frac[:, :size], alone.lattice, alone.species[:, :size], alone.mask[:, :size]
        )
        g = torch.Generator().manual_seed(1)
        noisy = torch.randn(3, 6, generator=g, dtype=torch.float64).to(dtype)[i : i + 1]
        single = net(alone.frac, noisy, torch.linspace(0.2, 0.8, 3, dtype=dtype)[i : i + 1], alone)
        torch.testing.assert_close(single.frac[0], out.frac[i, :size], **tolerance)


@pytest.mark.parametrize("name", NETWORKS)
def test_permutes_with_the_atoms_and_reads_everything(name):
    batch, net = crystals(sizes=(6, 6), prompt=4), build(name, prompt=4)
    out = call(net, batch)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    said = batch.prompt[:, torch.cat([torch.zeros(1, dtype=torch.long), 1 + order])]
    moved = CrystalBatch(
        batch.frac[:, order], batch.lattice, batch.species[:, order], batch.mask, said
    )
    torch.testing.assert_close(call(net, moved).frac, out.frac[:, order], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(call(net, moved).cell, out.cell, rtol=1e-9, atol=1e-11)
    other = CrystalBatch(
        batch.frac, batch.lattice, batch.species.roll(1, 1), batch.mask, batch.prompt
    )
    text = CrystalBatch(batch.frac, batch.lattice, batch.species, batch.mask, batch.prompt + 1)
    about_one = batch.with_prompt(
        torch.cat([batch.prompt[:, :2] + torch.tensor([[0.0], [1.0]]), batch.prompt[:, 2:]], 1)
    )
    assert (call(net, about_one).frac - out.frac).abs().max() > 1e-5
    alone = call(net, batch.with_prompt(batch.prompt[:, 0]))  # of the whole text only
    silent = batch.prompt * torch.tensor([1.0] + [0.0] * 6)[:, None]
    torch.testing.assert_close(alone.frac, call(net, batch.with_prompt(silent)).frac)
    for changed in (
        call(net, batch, t=0.1),
        call(net, batch, cell=0.5),
        call(net, other),
        call(net, text),
    ):
        assert (changed.frac - out.frac).abs().max() > 1e-5 and (
            changed.cell - out.cell
        ).abs().max() > 1e-5


def test_a_part_of_a_batch_keeps_what_is_said_of_its_atoms():
    batch = crystals(prompt=4)
    some = batch[torch.tensor([1, 2])]
    assert some.frac.shape[1] == 3 and torch.equal(some.prompt, batch.prompt[1:, :4])
    assert torch.equal(batch.repeat(2).prompt[3], batch.prompt[1])


def test_only_the_periodic_network_ignores_a_shift():
    batch = crystals(sizes=(5, 5))
    shifted = batch.frac + torch.tensor([0.13, 0.4, -0.21], dtype=torch.float64)
    free = build("cspnet", centred=False)
    torch.testing.assert_close(
        call(free, batch, frac=shifted).frac, call(free, batch).frac, rtol=1e-9, atol=1e-11
    )
    assert call(free, batch).frac.sum(1).abs().max() > 1e-3
    assert call(build("cspnet"), batch).frac.sum(1).abs().max() < 1e-13
    plain = build("transformer")
    assert (call(plain, batch, frac=shifted).frac - call(plain, batch).frac).abs().max() > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_reach_every_parameter_that_is_used(name):
    batch, net = crystals(prompt=4), build(name, prompt=4)
    out = call(net, batch)
    (out.frac.square().sum() + out.cell.square().sum()).backward()
    for key, p in net.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, key


def test_elements_stand_where_the_periodic_table_has_them():
    from ase.data import atomic_numbers

    places = ElementFeatures(4).places
    columns = {  # groups as every textbook prints them
        1: "H Li Na K Rb Cs Fr",
        2: "Be Mg Ca Sr Ba Ra",
        4: "Ti Zr Hf Rf",
        11: "Cu Ag Au",
        13: "B Al Ga In Tl",
        17: "F Cl Br I At",
        18: "He Ne Ar Kr Xe Rn",
    }
    for column, names in columns.items():
        assert {int(places[atomic_numbers[n], 1]) for n in names.split()} == {column}
    rows = {1: "H He", 2: "Li F Ne", 4: "K Sc Zn Kr", 6: "Cs La Lu Hf Rn", 7: "Fr U Og"}
    for row, names in rows.items():
        assert {int(places[atomic_numbers[n], 0]) for n in names.split()} == {row}
    f_block = {int(places[z, 1]) for z in range(57, 72)}
    assert len(f_block) == 15 and f_block.isdisjoint(range(19))

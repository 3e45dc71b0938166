"""The U-Net of grids: its shape and dtype, that it reads all it is given, and what twirling makes
of it."""

import pytest
import torch

import orbitwise as ow
from orbitwise.audit import AuditBatch, audit_equivariance
from orbitwise.errors import InputError
from orbitwise.groups.voxels import VoxelRotations
from orbitwise.networks import UNet3D


def build(width=4, dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return UNet3D(channels=2, width=width, times=8).to(dtype)


def inputs(count=3, n=8, dtype=torch.float64):
    x = torch.randn(
        count, 2, n, n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    return x.to(dtype), torch.linspace(0.1, 0.9, count, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [4, 12])
def test_shape_dtype_and_gradients(n, dtype):
    net, (x, t) = build(dtype=dtype), inputs(n=n, dtype=dtype)
    y = net(x, t)
    assert y.shape == x.shape and y.dtype == dtype
    y.square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad.isfinite().all() and p.grad.abs().max() > 0, name


def test_items_do_not_mix_and_everything_is_read():
    net, (x, t) = build(), inputs()
    y = net(x, t)
    torch.testing.assert_close(net(x[1:2], t[1:2]), y[1:2], rtol=1e-10, atol=1e-12)
    assert (net(x, t + 0.1) - y).abs().max() > 1e-4
    far = x.clone()
    far[:, 1, 0, 0, 0] += 1.0
    assert (net(far, t) - y)[:, :, -1, -1, -1].abs().max() > 1e-6  # from corner to corner


def test_a_side_that_cannot_be_halved_twice_is_refused():
    net, (x, t) = build(), inputs(n=6)
    with pytest.raises(InputError, match="multiple of 4"):
        net(x, t)
    with pytest.raises(InputError, match="multiple of 4"):
        UNet3D(width=6)


def test_width_sets_the_size():
    small, large = (sum(p.numel() for p in build(w).parameters()) for w in (4, 8))
    assert 3 < large / small < 4


def test_float32_follows_float64_and_is_one_graph_for_the_compiler():
    x, t = inputs()
    exact, single = build()(x, t), build(dtype=torch.float32)
    y = single(x.float(), t.float())
    assert (y - exact).abs().max() < 1e-4 * exact.abs().max()
    compiled = torch.compile(single, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x.float(), t.float()), y, rtol=1e-5, atol=1e-6)


def test_the_twirled_network_audits_to_rounding_and_the_plain_one_does_not():
    net, (x, t), group = build(), inputs(), VoxelRotations()
    batch = AuditBatch(x, torch.zeros_like(x), (t,))

    def twirled(x, t):
        g, _ = group.enumerate()
        images = group.act(g[:, None], x)
        answers = net(images.flatten(0, 1), t.repeat(24)).unflatten(0, (24, len(x)))
        return group.act(group.inverse(g)[:, None], answers).mean(0)

    twirl = ow.twirl(net, group)
    with torch.no_grad():
        plain = audit_equivariance(net, group, batch, outputs="field").row()
        exact = audit_equivariance(twirl, group, batch, outputs="field").row()
        torch.testing.assert_close(twirl(x, t), twirled(x, t), rtol=1e-10, atol=1e-13)
        by_hand = twirled(x, t).square().mean()
        sampled = ow.twirl(net, group, 2, generator=torch.Generator().manual_seed(0))(x, t)
    assert exact.rounding and abs(exact.equivariance.value) < 1e-14 * exact.total.value
    assert sampled.shape == x.shape and (sampled - twirl(x, t)).abs().max() > 1e-6
    assert plain.percent.value > 1 and not plain.rounding
    assert (
        abs(plain.twirled.value - by_hand) < 1e-12 * by_hand
    )  # target 0: the twirled error is the mean's square
    assert abs(plain.total.value - plain.twirled.value - plain.equivariance.value) < 1e-12 * by_hand


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_same_on_cuda():
    x, t = inputs()
    y = build().cuda()(x.cuda(), t.cuda())
    torch.testing.assert_close(y.cpu(), build()(x, t), rtol=1e-9, atol=1e-11)
    group = VoxelRotations()
    g = group.sample((3,), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(group.act(g.cuda(), x.cuda()).cpu(), group.act(g, x), rtol=0, atol=0)

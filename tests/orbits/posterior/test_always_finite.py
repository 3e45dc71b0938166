"""No NaN and no infinity, whatever the scales and degeneracies: hypothesis draws the kind, batches
the numbers."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import orbitwise as ow

EXAMPLES, BATCH = 200, 512  # 102,400 items

GROUPS = {
    "SO3": ow.SO3(),
    "O3": ow.O3(),
    "Translation": ow.Translation(),
    "Permutation": ow.Permutation(4, labels=[0, 0, 0, 1]),
    "Finite": ow.Finite(torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, -1.0, -1.0]))])),
    "SO3 x 2": ow.Product(ow.SO3(), ow.Permutation(4, labels=[0, 0, 1, 2])),
    "O3 x 2": ow.Product(ow.Permutation(4, labels=[0, 0, 1, 2]), ow.O3()),
    "torus": ow.PeriodicTranslation(),
    "torus x 2": ow.Product(ow.PeriodicTranslation(), ow.Permutation(4, labels=[0, 0, 1, 2])),
}
PROCESSES = [
    make(zero_com=centred)
    for centred in (False, True)
    for make in (
        ow.GaussianProcess.flow,
        ow.GaussianProcess.vp,
        ow.GaussianProcess.vp_linear,
        ow.GaussianProcess.ve,
        ow.GaussianProcess.edm,
        ow.GaussianProcess.bridge,
    )
]
SHAPES = ["general", "planar", "collinear", "coincident", "zero", "nearly planar", "symmetric"]


def cloud(shape, generator, dtype):
    x = torch.randn(BATCH, 4, 3, generator=generator, dtype=torch.float64)
    if shape in ("planar", "nearly planar"):
        x = x * torch.tensor([1.0, 1.0, 0.0 if shape == "planar" else 1e-7])
    elif shape == "collinear":
        x = x[..., :1] * x[:, :1]
    elif shape == "coincident":
        x = x[:, :1].expand(BATCH, 4, 3)
    elif shape == "zero":
        x = torch.zeros_like(x)
    elif shape == "symmetric":  # a regular tetrahedron: three equal singular values
        x = (
            torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
            .double()
            .expand(BATCH, 4, 3)
        )
    return x.to(dtype)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(GROUPS)),
    process=st.sampled_from(PROCESSES),
    shapes=st.tuples(st.sampled_from(SHAPES), st.sampled_from(SHAPES)),
    scales=st.tuples(st.floats(-8, 8), st.floats(-8, 8)),
    related=st.sampled_from(["unrelated", "noised", "equal", "mirrored"]),
    times=st.sampled_from(["all", "ends", "near ends"]),
    method=st.sampled_from(["exact", "exact", "exact", "mode", "snis"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    masked=st.booleans(),
    conformers=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_always_finite(
    name, process, shapes, scales, related, times, method, dtype, masked, conformers, seed
):
    gen = torch.Generator().manual_seed(seed)
    group = GROUPS[name]
    t = torch.rand(BATCH, generator=gen, dtype=dtype)
    if times == "ends":
        t = t.round()
    elif times == "near ends":
        t = t.round() + (0.5 - t.round()) * 2e-7
    if "torus" in name:
        process = ow.WrappedNormalProcess(sigma_min=1e-3, sigma_max=2.0)
    if method == "snis" and name == "Translation":
        method = "exact"
    x1 = cloud(shapes[0], gen, dtype) * 10 ** scales[0]
    if related == "unrelated":
        xt = cloud(shapes[1], gen, dtype) * 10 ** scales[1]
    else:
        xt = {"noised": process.perturb(x1, t, generator=gen), "equal": x1, "mirrored": -x1}[
            related
        ]
    mask = None
    if masked:
        mask = torch.rand(BATCH, 4, generator=gen) < 0.6
        mask[:, :3] = mask[:, :1]  # equal labels stay together
        mask |= ~mask.any(-1, keepdim=True)
    if conformers:
        x1 = torch.stack([x1, 2 * x1, cloud(shapes[1], gen, dtype)])
    post = ow.orbit_posterior(group, process, x1, xt, t, mask, method, proposals=8, generator=gen)
    drawn = post.sample(1, gen)
    g = drawn[1] if conformers else drawn
    for value in (post.mean, post.score, post.log_evidence, *(g if isinstance(g, tuple) else (g,))):
        assert torch.isfinite(value).all()
    assert post.mean.dtype == post.score.dtype == post.log_evidence.dtype == dtype
    reference = x1.double() if mask is None else torch.where(mask[..., None], x1.double(), 0.0)
    if (
        "torus" not in name and name != "Translation"
    ):  # a mean of isometric images is no longer than they are
        size = reference.square().sum((-2, -1)).sqrt()
        size = size.amax(0) if conformers else size
        assert (
            post.mean.double().square().sum((-2, -1)).sqrt() <= size * (1 + 1e-5) + 1e-300
        ).all()

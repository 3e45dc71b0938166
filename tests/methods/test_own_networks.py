"""A network of one's own in every method that has one: named by its class, one of the package has
the weights that it has by its short name."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from orbitwise.errors import InputError
from orbitwise.methods.crystals.model import FORMAT, SHIPPED, load_model
from orbitwise.runs.config import validate
from orbitwise.runs.registry import config_class

SMALL = {"hidden": 16, "layers": 1}
# method, what else it needs, the network by its short name, by its class, how it is built
METHODS = {
    "orbit_diffusion": (
        {"data": "x"},
        {"name": "egnn", **SMALL},
        {"name": "orbitwise.networks:EGNN", "arguments": SMALL},
        lambda network: network.build(3),
    ),
    "dynamics": (
        {"data": "x", "task": "forces"},
        {"name": "pairs", **SMALL},
        {"name": "orbitwise.networks:PairNetwork", "arguments": {**SMALL, "pair": 8}},
        lambda network: network.build(3),
    ),
    "molecule_conformers": (
        {"data": "x"},
        {**SMALL, "vectors": 8},
        {"name": "orbitwise.molecules:MoleculeNetwork", "arguments": {**SMALL, "vectors": 8}},
        lambda network: network.build(3),
    ),
    "von_mises": (
        {"data": "x"},
        {**SMALL, "components": 2},
        {
            "name": "orbitwise.molecules.torsion_network:VonMisesNet",
            "arguments": {**SMALL, "components": 2},
        },
        lambda network: network.build(3),
    ),
    "protein_backbones": (  # which is told how many atoms a residue has
        {"data": "x"},
        {**SMALL, "heads": 2, "expand": 2},
        {
            "name": "orbitwise.proteins:ResidueTransformer",
            "arguments": {**SMALL, "heads": 2, "expand": 2},
        },
        lambda network: network.build(3, 3),
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_the_same_class_has_the_same_weights(method):
    rest, short, named, build = METHODS[method]
    state = torch.random.get_rng_state()
    built = [
        build(validate(config_class(method), {**rest, "network": network}).network)
        for network in (short, named)
    ]
    assert torch.equal(state, torch.random.get_rng_state())
    one, other = (network.state_dict() for network in built)
    assert type(built[0]) is type(built[1]) and one.keys() == other.keys() and one
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_network_is_refused(method):
    rest, _, _, build = METHODS[method]
    network = {"name": "orbitwise.groups.so3:SO3"}
    config = validate(config_class(method), {**rest, "network": network})
    with pytest.raises(InputError, match=r"network .*must be a torch.nn.Module"):
        build(config.network)


def test_a_crystal_model_with_a_network_of_ones_own(tmp_path):
    """The shipped one, with its network named by its class in the header: the same structures."""
    with safe_open(str(SHIPPED), framework="pt") as file:
        header = json.loads(file.metadata()["header"])
    assert header["model"]["network"] == "cspnet"
    header["model"]["network"] = {"name": "orbitwise.crystals.cspnet:CSPNet"}
    path = tmp_path / "model.safetensors"
    about = {"format": FORMAT, "header": json.dumps(header)}
    save_file(load_file(SHIPPED), path, metadata=about)

    with pytest.raises(InputError, match="--trust"):
        load_model(path)
    one, other = load_model(), load_model(path, trust=True)
    weights = one.denoiser.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in other.denoiser.state_dict().items())

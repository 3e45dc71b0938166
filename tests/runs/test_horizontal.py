"""The key ``horizontal``: of all trainings on points, and unwritten where it is off."""

import pytest

from orbitwise.runs.config import load

METHODS = ["orbit_diffusion/default", "protein_backbones/ca", "molecule_conformers/default"]


@pytest.mark.parametrize("method", METHODS)
def test_it_is_a_key_and_its_default_is_not_written(method):
    given = ["data=points.npz"]
    assert load(method, given).horizontal is False
    assert "horizontal" not in load(method, given).resolved()
    on = load(method, [*given, "horizontal=true"])
    assert on.horizontal is True and on.resolved()["horizontal"] is True


def test_the_parts_take_it(tmp_path):
    np = pytest.importorskip("numpy")
    from orbitwise.methods.molecules import orbit_diffusion
    from orbitwise.molecules.files.structures import write_extxyz
    from orbitwise.molecules.molecule import parse_smiles

    pytest.importorskip("rdkit")
    mol = parse_smiles("CCO")
    from rdkit.Chem import AllChem

    AllChem.EmbedMultipleConfs(mol, 12, randomSeed=1)
    x = np.stack([c.GetPositions() for c in mol.GetConformers()])
    write_extxyz(tmp_path / "ethanol.extxyz", mol, x)
    given = [
        f"data={tmp_path / 'ethanol.extxyz'}",
        "smiles=CCO",
        "network.hidden=16",
        "network.layers=1",
        "train.steps=3",
        "train.batch_size=4",
        "sampling.steps=4",
        "sampling.stepper=ancestral",
        "horizontal=true",
    ]
    config = load("orbit_diffusion/default", given)
    assert orbit_diffusion.parts(config).denoiser.horizontal
    orbit_diffusion.train(config, tmp_path / "run")
    orbit_diffusion.sample(tmp_path / "run", n=2)
    assert "horizontal: true" in (tmp_path / "run" / "config.yaml").read_text()

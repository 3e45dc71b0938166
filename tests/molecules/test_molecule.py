"""SMILES in: clear refusals, open stereochemistry, embeddings that share one labelling, batches."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from orbitwise.errors import InputError
from orbitwise.molecules import etkdg
from orbitwise.molecules.handedness import relabel, stereo_elements
from orbitwise.molecules.molecule import (
    bond_orders,
    choose_isomer,
    embed,
    from_batch,
    parse_smiles,
    to_batch,
    unspecified_stereo,
)

BAD = {
    "C1CC(": "around character 5",
    "C1CC": "unclosed ring",
    "CCX": "around character 3",
    "[Xx]C": "around character 2",
    "c1cccc1": "Kekulize|kekulize",
    "C(C)(C)(C)(C)C": "atom # 1 C, 5",
    "": "empty",
    "   ": "empty",
    "CCO ethanol": "blank",
    "Cé": "character that no SMILES has",
    "CCO.[Na+]": "2 separate fragments",
    "[Na+]": "lone ion",
    "[He]": "lone atom",
    "[H+]": "lone ion",
    "C[CH2]": "radical",
    "*CC": "placeholder",
    "C" * 100: "302 atoms",
}


@pytest.mark.parametrize("smiles", BAD)
def test_bad_smiles_say_what_is_wrong(smiles, capfd):
    with pytest.raises(InputError, match=BAD[smiles]) as raised:
        parse_smiles(smiles)
    assert "\n" not in str(raised.value)
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err == ""  # RDKit's own log stays out of sight


def test_good_smiles_have_hydrogens_and_keep_stereo():
    mol = parse_smiles("CC(=O)N[C@@H](C)C(=O)NC")
    assert mol.GetNumAtoms() == 22
    assert Chem.MolToSmiles(Chem.RemoveHs(mol)) == Chem.CanonSmiles("CC(=O)N[C@@H](C)C(=O)NC")
    assert unspecified_stereo(mol) == []
    assert parse_smiles("[NH4+]").GetNumAtoms() == 5


def test_rdkit_log_still_works_after_a_failure(capfd):
    with pytest.raises(InputError):
        parse_smiles("C1CC(")
    Chem.MolFromSmiles("C1CC(")
    assert "Parse Error" in capfd.readouterr().err


def test_open_stereo_is_named_and_one_isomer_chosen():
    mol = parse_smiles("CC(O)C=CC")
    messages = unspecified_stereo(mol)
    assert (
        len(messages) == 2
        and "atom 2 (C)" in messages[0]
        and "double bond 4 (C)=5 (C)" in messages[1]
    )
    assert unspecified_stereo(choose_isomer(mol, seed=1)) == []
    chosen = {Chem.MolToSmiles(choose_isomer(mol, seed)) for seed in range(12)}
    assert len(chosen) > 1  # the seed decides, not the molecule
    x = embed(mol, 30, seed=3)
    copy = Chem.Mol(mol)
    names = set()
    for frame in x:
        copy.RemoveAllConformers()
        conformer = Chem.Conformer(mol.GetNumAtoms())
        conformer.SetPositions(frame)
        copy.AddConformer(conformer)
        Chem.AssignStereochemistryFrom3D(copy)
        names.add(Chem.MolToSmiles(Chem.RemoveHs(copy)))
    assert len(names) == 1


def _raw_embeddings(mol: Chem.Mol, n: int, seed: int = 5) -> np.ndarray:
    parameters = AllChem.ETKDGv3()
    parameters.randomSeed = seed
    work = Chem.Mol(mol)
    return np.array(
        [
            work.GetConformer(i).GetPositions()
            for i in AllChem.EmbedMultipleConfs(work, n, parameters)
        ]
    )


PROCHIRAL = [
    "CCCC",  # CH2 and CH3
    "CC(C)C",  # isopropyl: whole branches
    "CC(C)(C)C",
    "C1CCCCC1",
    "C1CC2CCC1C2",  # norbornane: bridgeheads flip together only
    "C1CCC2(C1)CCCC2",  # spiro: a ring is reversed
    "CC(C)=CC",  # cis and trans methyl
    "C=C",
    "CS(=O)(=O)C",
    "CS(C)=O",  # pyramidal sulfur
    "C[C@H]1CC[C@@H](C)CC1",
    "CC(C)C[C@H](N)C(=O)O",
    "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O",
    "O[C@H](F)[C@@H](F)O",  # meso
    "FC(F)(F)C(C)(C(F)(F)F)c1ccccc1",
    "CC(C)(C)c1cc(C(C)(C)C)cc(C(C)(C)C)c1",
]


@pytest.mark.parametrize("smiles", PROCHIRAL)
def test_relabel_gives_all_embeddings_the_handedness_of_the_first(smiles):
    mol = parse_smiles(smiles)
    x = _raw_embeddings(mol, 40)
    result = relabel(mol, x)
    assert result.same_isomer.all()
    # oracle for handedness: signed volumes at carbons with four neighbours, written out here
    for atom in mol.GetAtoms():
        if atom.GetDegree() == 4:
            near = sorted(other.GetIdx() for other in atom.GetNeighbors())
            a, b, c, d = np.moveaxis(result.positions[:, near], 1, 0)
            volume = np.einsum("fi,fi->f", a - d, np.cross(b - d, c - d))
            assert (np.sign(volume) == np.sign(volume[0])).all()
    # a renumbering is an automorphism of the graph and moves coordinates only
    bonds = bond_orders(mol).numpy()
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    for permutation in result.permutations:
        assert (bonds[np.ix_(permutation, permutation)] == bonds).all()
        assert (numbers[permutation] == numbers).all()
    moved = np.take_along_axis(x, result.permutations[..., None], axis=1)
    assert np.array_equal(moved, result.positions)


def test_relabel_leaves_what_agrees_and_finds_the_mirror_image():
    mol = parse_smiles("C[C@H](O)CC")
    x = embed(mol, 6, seed=0)
    assert (relabel(mol, x).permutations == np.arange(mol.GetNumAtoms())).all()
    mirrored = relabel(mol, np.concatenate([x, x * [1, 1, -1]]))
    assert mirrored.same_isomer.tolist() == [True] * 6 + [False] * 6  # (R) is not (S)
    achiral = parse_smiles("CCCC")
    x = embed(achiral, 4, seed=0)
    assert relabel(achiral, np.concatenate([x, x * [1, 1, -1]])).same_isomer.all()


def test_stereo_elements_of_propene_and_ammonia():
    elements = stereo_elements(parse_smiles("CC=C"))
    assert len(elements.centres) == 1 and len(elements.bonds) == 1
    assert (
        len(stereo_elements(parse_smiles("CN(C)C")).centres) == 3
    )  # nitrogen inverts: not among them


def test_embed_is_reproducible_and_refuses_the_impossible():
    mol = parse_smiles("CC(C)CO")
    assert np.array_equal(embed(mol, 5, seed=2), embed(mol, 5, seed=2))
    assert not np.allclose(embed(mol, 5, seed=2), embed(mol, 5, seed=3))
    with pytest.raises(InputError, match="no three-dimensional geometry"):
        embed(parse_smiles("C1#CC1"), 2)


def test_an_embedding_that_runs_out_of_time_is_none(monkeypatch):
    monkeypatch.setattr(etkdg, "_PATIENCE", 1)  # second
    crowded = parse_smiles("c1(C(C)(C)C)" + 4 * "c(C(C)(C)C)" + "c1C(C)(C)C")
    with pytest.raises(InputError, match="no three-dimensional geometry"):
        embed(crowded, 1, 0)


def test_ctrl_c_stops_an_embedding():
    code = (
        "from orbitwise.molecules.molecule import *; m = parse_smiles('C' * 30); print(1,"
        " flush=True); embed(m, 400)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    _, err = process.communicate(timeout=60)
    # some releases of RDKit say so themselves: "KeyboardInterrupt: Embedding cancelled"
    assert err.strip().splitlines()[-1].partition(":")[0] == "KeyboardInterrupt"
    assert time.monotonic() - begin < 30


def test_batch_and_back():
    mol = parse_smiles("C=Cc1ccccc1C#N")
    x = embed(mol, 3, seed=0)
    batch = to_batch(mol, x)
    assert batch.x.dtype == torch.get_default_dtype() and batch.x.shape == (3, mol.GetNumAtoms(), 3)
    assert torch.equal(batch.bonds, batch.bonds.transpose(1, 2))
    assert sorted(set(batch.bonds[0].flatten().tolist())) == [0, 1, 2, 3, 4]
    for bond in mol.GetBonds():
        value = batch.bonds[1, bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()].item()
        assert value == {1.0: 1, 1.5: 4, 2.0: 2, 3.0: 3}[bond.GetBondTypeAsDouble()]
    back = from_batch(to_batch(mol, x, dtype=torch.float64), mol)
    assert np.array_equal(np.array([c.GetPositions() for c in back.GetConformers()]), x)
    with pytest.raises(InputError, match="expected"):
        to_batch(mol, x[:, 1:])
    with pytest.raises(InputError, match="does not hold"):
        from_batch(batch, parse_smiles("CCO"))


@pytest.mark.parametrize("seed", [0, 1, 1_000_003])
def test_embeddings_of_one_call_differ(seed):
    mol = parse_smiles("CCCC")
    x = embed(mol, 20, seed)
    carbons = x[:, [0, 3]]
    ends = np.linalg.norm(carbons[:, 0] - carbons[:, 1], axis=-1)
    assert len(np.unique(ends.round(3))) > 15  # RDKit's seed 0 once gave twenty copies
    assert ends.min() < 3.3 and ends.max() > 3.7  # gauche and trans

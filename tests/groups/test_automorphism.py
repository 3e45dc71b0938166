"""Automorphisms of molecules and graphs against RDKit's substructure search, networkx and known
orders."""

import gzip
import itertools
import math

import networkx as nx
import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.automorphism import Automorphism

# SMILES, all automorphisms, those that keep handedness in the embedded geometry
MOLECULES = {
    "methane": ("C", 24, 12),
    "ethane": ("CC", 72, 18),
    "ethanol": ("CCO", 12, 3),
    "alanine dipeptide": ("CC(=O)N[C@@H](C)C(=O)NC", 216, 27),
    "benzene": ("c1ccccc1", 12, 12),
    "cyclohexane": ("C1CCCCC1", 768, 12),
    "aspirin": ("CC(=O)Oc1ccccc1C(=O)O", 6, 3),
    "ibuprofen": ("CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O", 1728, 54),
    "toluene": ("Cc1ccccc1", 12, 6),
    "neopentane": ("CC(C)(C)C", 31104, 972),
    "ammonia (inverts)": ("N", 6, 6),
    "ammonium": ("[NH4+]", 24, 12),
    "dimethyl sulfoxide (does not)": ("CS(C)=O", 72, 9),
    "2-butene, trans": ("C/C=C/C", 72, 18),
    "ethene": ("C=C", 8, 4),
    "1,1-difluoroethene": ("FC(F)=C", 4, 2),
    "cubane": ("C12C3C4C1C5C2C3C45", 48, 24),
    "adamantane": ("C1C2CC3CC1CC(C2)C3", 1536, 12),
    "acetate": ("CC(=O)[O-]", 6, 3),
    "pyridinium": ("c1cc[nH+]cc1", 2, 2),
    "water": ("O", 2, 2),
    "two waters": ("O.O", 8, 8),
    "hydrogen chloride": ("Cl", 1, 1),
    "deuterated methane": ("[2H]C", 6, 3),
    "meso-tartaric acid": ("OC(=O)[C@H](O)[C@H](O)C(=O)O", 2, 1),
    "tartaric acid": ("OC(=O)[C@H](O)[C@@H](O)C(=O)O", 2, 2),
}


def embedded(smiles, seed=7):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=seed) == 0
    return mol, torch.from_numpy(mol.GetConformer().GetPositions())


def by_rdkit(mol):
    """All matches of the molecule on itself, without stereo; its convention is ours: match[i] goes
    to i."""
    return set(mol.GetSubstructMatches(mol, uniquify=False, useChirality=False, maxMatches=200_000))


def signed_volumes(x, mol, table):
    """Signed volume at every four-coordinate atom with the neighbours in the order of the table's
    images."""
    rows = [[n.GetIdx() for n in a.GetNeighbors()] for a in mol.GetAtoms() if a.GetDegree() == 4]
    y = x[table][..., torch.tensor(rows, dtype=torch.long).reshape(-1, 4), :]
    return torch.linalg.det(y[..., :3, :] - y[..., 3:, :]).sign()


@pytest.mark.parametrize("name", MOLECULES)
def test_orders_and_elements(name):
    smiles, order, kept_order = MOLECULES[name]
    mol, x = embedded(smiles)
    full = Automorphism.from_mol(mol, max_order=40_000)
    kept = Automorphism.from_mol(mol, x)
    assert (full.order, kept.order) == (order, kept_order)
    reference = by_rdkit(mol)
    table, log_weights = full.enumerate(dtype=torch.float64)
    assert {tuple(row) for row in table.tolist()} == reference
    assert abs(log_weights.logsumexp(0)) < 1e-12
    few = kept.enumerate()[0]
    assert {tuple(row) for row in few.tolist()} <= reference
    if order <= 2000:  # by brute force: exactly those elements that keep every signed volume
        volumes = signed_volumes(x, mol, table)
        right = (volumes == signed_volumes(x, mol, torch.arange(len(x)))).all(-1)
        if not any(
            word in name for word in ("sulfoxide", "butene", "ethene")
        ):  # more than volumes counts
            assert {tuple(row) for row in few.tolist()} == {
                tuple(row) for row in table[right].tolist()
            }


def test_double_bonds_keep_cis_and_trans():
    """1,2-difluoroethene has a symmetry that swaps the ends; single swaps of F and H do not exist;
    in ethene the two swaps of one CH2 are refused and the double swap is kept."""
    mol, x = embedded("C=C")
    table = Automorphism.from_mol(mol, x).enumerate()[0]
    one_end = torch.tensor([0, 1, 3, 2, 4, 5])
    both_ends = torch.tensor([0, 1, 3, 2, 5, 4])
    assert not (table == one_end).all(-1).any() and (table == both_ends).all(-1).any()
    assert Automorphism.from_mol(embedded("F/C=C/F")[0]).order == 2


def test_kekule_structures_do_not_split_a_ring():
    mol = Chem.AddHs(Chem.MolFromSmiles("c1ccccc1"))
    Chem.Kekulize(mol, clearAromaticFlags=True)
    assert Automorphism.from_mol(mol).order == 12
    assert Automorphism.from_mol(Chem.AddHs(Chem.MolFromSmiles("c1ccc2ccccc2c1"))).order == 4


def test_a_group_too_large_to_enumerate():
    """Tri-tert-butylbenzene: 1.3e10 elements, 3.2e6 with handedness. Found, sampled, never cut
    off."""
    mol, x = embedded("CC(C)(C)c1cc(C(C)(C)C)cc(C(C)(C)C)c1")
    full, kept = Automorphism.from_mol(mol), Automorphism.from_mol(mol, x)
    assert full.order == 6 * (6 * 6**3) ** 3 and kept.order == 6 * (3 * 3**3) ** 3
    with pytest.raises(
        NoClosedFormError, match=r"13060694016 elements.*reference positions.*fixed.*'snis'"
    ):
        full.enumerate()
    heavy = [a.GetIdx() for a in mol.GetAtoms() if a.GetAtomicNum() > 1]
    assert Automorphism.from_mol(mol, x, fixed=heavy).order == 3**9
    assert len(Automorphism.from_mol(mol, x, fixed=[*heavy, *range(18, 24)]).enumerate()[0]) == 3**7
    g = kept.sample((500,), generator=torch.Generator().manual_seed(0))
    bonds = torch.from_numpy(Chem.GetAdjacencyMatrix(mol))
    assert all(torch.equal(bonds[p][:, p], bonds) for p in g[:50])
    assert (signed_volumes(x, mol, g) == signed_volumes(x, mol, torch.arange(len(x)))).all()
    assert len(g.unique(dim=0)) == 500


def test_long_chains_do_not_explode():
    mol, x = embedded("C" * 40)
    assert Automorphism.from_mol(mol).order == 2 * 2**38 * 36
    kept = Automorphism.from_mol(mol, x)
    assert kept.order == 18 and kept.enumerate()[0].shape == (18, 122)


def test_sampling_is_uniform():
    mol, x = embedded("C")
    group = Automorphism.from_mol(mol, x)
    draws = group.sample((12_000,), generator=torch.Generator().manual_seed(3))
    _, count = draws.unique(dim=0, return_counts=True)
    assert len(count) == 12
    assert ((count - 1000.0) ** 2 / 1000).sum() < 11 + 5 * math.sqrt(22)


@pytest.mark.parametrize(
    "graph",
    [
        nx.path_graph(6),
        nx.cycle_graph(7),
        nx.star_graph(5),
        nx.complete_bipartite_graph(3, 3),
        nx.petersen_graph(),
        nx.hypercube_graph(3),
        nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)),
        nx.frucht_graph(),
        nx.random_labeled_tree(12, seed=4),
        nx.gnp_random_graph(9, 0.4, seed=2),
        nx.empty_graph(4),
    ],
    ids=str,
)
def test_graphs_against_networkx(graph):
    bonds = nx.to_numpy_array(graph).astype(int)
    group = Automorphism.from_graph(np.zeros(len(bonds)), bonds)
    matcher = nx.isomorphism.GraphMatcher(
        nx.convert_node_labels_to_integers(graph), nx.Graph(bonds)
    )
    reference = {tuple(m[i] for i in range(len(bonds))) for m in matcher.isomorphisms_iter()}
    assert group.order == len(reference)
    if group.finite:
        assert {tuple(row) for row in group.enumerate()[0].tolist()} == reference


def test_labels_and_bond_orders_count():
    ring = nx.to_numpy_array(nx.cycle_graph(6)).astype(int)
    assert Automorphism.from_graph([0] * 6, ring).order == 12
    assert Automorphism.from_graph([0, 1] * 3, ring).order == 6
    assert Automorphism.from_graph([8, 1, 1, 1, 1, 1], ring).order == 2
    alternating = ring.copy()
    for i in (0, 2, 4):
        alternating[i, (i + 1) % 6] = alternating[(i + 1) % 6, i] = 2
    assert Automorphism.from_graph([0] * 6, alternating).order == 6
    assert Automorphism.from_graph([0] * 6, ring, fixed=[0, 1]).order == 1


def test_from_graph_agrees_with_from_mol():
    mol, x = embedded("CC(=O)N[C@@H](C)C(=O)NC")
    species = torch.tensor([a.GetAtomicNum() for a in mol.GetAtoms()])
    bonds = torch.from_numpy(Chem.GetAdjacencyMatrix(mol, useBO=True)).long()
    a, b = Automorphism.from_graph(species, bonds, x), Automorphism.from_mol(mol, x)
    rows = [{tuple(r) for r in group.enumerate()[0].tolist()} for group in (a, b)]
    assert rows[0] == rows[1] and len(rows[0]) == 27


def test_reference_geometry_of_any_conformer_gives_the_same_group():
    """Handedness does not change under torsions, so neither does the group."""
    mol = Chem.AddHs(Chem.MolFromSmiles("CCCC"))
    ids = list(AllChem.EmbedMultipleConfs(mol, 6, randomSeed=1))
    AllChem.AlignMolConformers(mol)
    orders = {Automorphism.from_mol(mol, mol.GetConformer(i).GetPositions()).order for i in ids}
    assert orders == {18}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: Automorphism.from_mol(m, x[:3]), "finite points"),
        (lambda m, x: Automorphism.from_mol(m, x * math.nan), "finite points"),
        (lambda m, x: Automorphism.from_mol(m, fixed=[99]), "fixed atoms"),
        (lambda m, x: Automorphism.from_graph([1, 2], np.eye(3)), "symmetric bonds"),
        (lambda m, x: Automorphism.from_graph([1, 2], [[0, 1], [0, 0]]), "symmetric bonds"),
        (lambda m, x: Automorphism.from_graph([], np.zeros((0, 0))), "without atoms"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call(*embedded("CO"))


def test_a_molecule_that_cannot_be_sanitised():
    mol = Chem.MolFromSmiles("CC(C)(C)(C)C", sanitize=False)
    with pytest.raises(InputError, match="sanitised"):
        Automorphism.from_mol(mol)


def test_a_graph_too_regular_is_refused_not_endless():
    """A strongly regular graph (Shrikhande) may be solved or refused, but in bounded time."""
    steps = [(1, 0), (0, 1), (1, 1)]
    bonds = np.zeros((16, 16), int)
    for a in range(4):
        for b in range(4):
            for da, db in steps:
                j = 4 * ((a + da) % 4) + (b + db) % 4
                bonds[4 * a + b, j] = bonds[j, 4 * a + b] = 1
    assert Automorphism.from_graph([0] * 16, bonds).order == 192


def test_drug_like_molecules_against_rdkit(shared_data):
    """Every 25th molecule of a ZINC split: the same number of automorphisms as RDKit finds
    matches."""
    with gzip.open(shared_data("smiles/zinc250k_test.smi.gz"), "rt") as lines:
        smiles = [line.split()[0] for line in itertools.islice(lines, 0, None, 25)]
    checked = 0
    for text in smiles:
        mol = Chem.AddHs(Chem.MolFromSmiles(text))
        group = Automorphism.from_mol(mol)
        if group.order < 5000:
            checked += 1
            assert group.order == len(by_rdkit(mol)), text
    assert checked > 100

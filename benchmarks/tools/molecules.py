"""The molecules of the conformer benchmarks, shared by the scripts that run them. Not a benchmark
itself."""

MOLECULES = {
    "alanine_dipeptide": "CC(=O)N[C@@H](C)C(=O)NC",
    "butane": "CCCC",
    "difluoroethane": "FCCF",
    "cyclohexane": "C1CCCCC1",
    "pentane": "CCCCC",
    "butanol": "CC[C@@H](C)O",
    "methylacetamide": "CC(=O)NC",
    "ibuprofen": "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "glucose": "OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O",
    "sildenafil": "CCCc1nn(C)c2c1nc([nH]c2=O)-c1cc(ccc1OCC)S(=O)(=O)N1CCN(C)CC1",
    "lactone": "O=C1CCCCCCCCCCO1",
    "biaryl": "COc1ccccc1-c1ccccc1",
}

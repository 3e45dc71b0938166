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
}

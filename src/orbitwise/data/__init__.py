"""File formats and SMILES to and from batches of points. Names load on first use."""

from orbitwise.lazy import load_on_first_use

# One line per name: name -> module inside this package.
_WHERE = {
    "PointBatch": "batch",
    "parse_smiles": "molecules",
    "unspecified_stereo": "molecules",
    "choose_isomer": "molecules",
    "embed": "molecules",
    "bond_orders": "molecules",
    "to_batch": "molecules",
    "from_batch": "molecules",
    "with_conformers": "molecules",
    "stereo_elements": "handedness",
    "relabel": "handedness",
    "perceive_bonds": "bonds",
    "Conformers": "conformer_sets",
    "ConformerSet": "conformer_sets",
    "read_conformer_set": "conformer_sets",
    "read_conformer_sets": "conformer_sets",
    "write_conformer_set": "conformer_files",
    "MoleculeBatch": "molecule_batch",
    "ConformerData": "molecule_batch",
    "Chain": "proteins",
    "ChainBatch": "proteins",
    "chain_batch": "proteins",
    "build_backbone": "ideal_backbones",
    "read_chains": "protein_files",
    "write_pdb": "protein_files",
    "VoxelGrid": "voxels",
    "read_geometries": "voxels",
    "Frames": "files",
    "read_molecule": "files",
    "read_extxyz": "files",
    "read_sdf": "files",
    "write_sdf": "files",
    "write_extxyz": "files",
    "Crystal": "crystals",
    "CrystalBatch": "crystals",
    "crystal_batch": "crystals",
    "CrystalFile": "crystal_files",
    "read_crystals": "crystal_files",
    "write_cif": "crystal_files",
    "write_crystal_extxyz": "crystal_files",
    "to_structure": "crystal_files",
    "from_structure": "crystal_files",
    "to_atoms": "crystal_files",
    "from_atoms": "crystal_files",
}

__all__ = [*_WHERE]
__getattr__, __dir__ = load_on_first_use(__name__, _WHERE)

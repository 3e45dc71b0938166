"""Try every file of a folder of faults: inputs that failed once, each with what it must give.

    python -m benchmarks.tools.faults                  # all of ../shared/faults
    python -m benchmarks.tools.faults --only 'cif_*'   # some

Each file goes to the command that reads it, in a process of its own with bounded memory and time.
What is *refused* has to be refused in one clear line with exit code 2 and no traceback; what is
*read* has to hold what the list says. Writes ``faults.tried`` and ``faults.open``. A file that the
list does not name counts as open.
"""

from __future__ import annotations

import fnmatch
import io
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import SHARED
from benchmarks.tools.rows import Row, write_rows

FOLDER = SHARED.parent / "faults"
MOLECULE = FOLDER / "reports" / "xyz_comment_equals.xyz"
SECONDS, GIGABYTES = 90, 6

SMALL = "train.batch_size=2 network.hidden=16 network.layers=1 --out o"
CRYSTALS = (
    "train crystal_structure/perov5 data={} splits=[] test_data={} test_split=null train.steps=2"
    " train.batch_size=2 model.hidden=16 model.layers=1 --out o"
)
PROTEINS = (
    "train protein_backbones/backbone data={} shortest=4 train.steps=1 train.batch_size=2"
    " network.hidden=16 network.layers=1 network.heads=2 --out o"
)
ONE = f"train orbit_diffusion/default data={{}} train.steps=3 {SMALL}"
MANY = (
    "train molecule_conformers/openff data={} train.steps=2 train.batch_size=4 network.hidden=16"
    " network.vectors=8 network.layers=1 --out o"
)
FORCES = f"train dynamics/forces data={{}} items=8 held_out=4 train.steps=2 {SMALL}"
VOXELS = "train dynamics/voxels data={} held_out=1 train.steps=2 train.batch_size=2 --out o"
CONFORMERS = "conformers CCO --reference {} --budget 0.1 --n 20 --out o"
AUDIT = "audit --ase lj {} --out o"


@dataclass(frozen=True)
class Case:
    """Files ``pattern`` go to ``words`` of the command line, or to a function that reads them; the
    exit code is one of ``codes`` and the output holds ``says`` (a regular expression)."""

    pattern: str
    reads: str | Callable[[Path], str]
    says: str = "error: "
    codes: tuple[int, ...] = (2,)

    @property
    def refused(self) -> bool:
        return self.codes == (2,)


def crystals(path: Path) -> str:
    """Formulas of what is read."""
    from ase.data import chemical_symbols

    from orbitwise.crystals.files.read import read_crystals

    def formula(numbers: Sequence[int]) -> str:
        counts = {z: list(numbers).count(z) for z in sorted(set(numbers))}
        return " ".join(f"{chemical_symbols[z]}{n}" for z, n in counts.items())

    return "\n".join(formula(c.species.tolist()) for c in read_crystals(path).crystals)


def chains(path: Path) -> str:
    """Sequences of what is read, and what was noted."""
    from orbitwise.proteins.files import read_chains

    found = read_chains(path, "backbone")
    return "\n".join([*(c.sequence for c in found.chains), *found.notes])


def molecules(path: Path) -> str:
    """Charge, number of conformers and other isomers of each molecule."""
    from rdkit import Chem

    from orbitwise.molecules.files.sets import read_conformer_set

    found = read_conformer_set(path)
    lines = [
        f"{Chem.GetFormalCharge(m.mol):+d} {len(m)} conformers, {m.other_isomers} other"
        for m in found.molecules
    ]
    return "\n".join([f"{len(found)} molecules", *lines])


def leaks(path: Path) -> str:
    """Two files as one set: whether a molecule stands in two splits."""
    from orbitwise.molecules.files.sets import read_conformer_sets
    from orbitwise.molecules.identity import identity

    other = path.with_name("sdf_split_leak_b_atom_maps.sdf")
    found = read_conformer_sets([path, other])
    splits: dict[str, set[str]] = {}
    for m in found.molecules:
        splits.setdefault(identity(m.mol, exact=False), set()).add(m.split)
    shared = sum(len(names) > 1 for names in splits.values())
    return f"{len(found)} molecules, {shared} in two splits"


def charge(path: Path) -> str:
    """Total charge of a molecule."""
    from rdkit import Chem

    from orbitwise.molecules.files.structures import read_molecule

    return f"charge {Chem.GetFormalCharge(read_molecule(path).mol)}"


def _run_folder(path: Path, name: str) -> None:
    """A run that was trained a moment ago, with one of its files put in place."""
    command(ONE.format(MOLECULE))
    shutil.copy(path, Path("o") / name)


def nan_weights(path: Path) -> str:
    _run_folder(path, "checkpoint.safetensors")
    return command("sample o --n 4")


def tail(path: Path) -> str:
    _run_folder(path, "metrics.jsonl")
    return command(ONE.format(MOLECULE))


def stored_config(path: Path) -> str:
    Path("o").mkdir()
    shutil.copy(path, "o/config.yaml")
    return command("report o")


def harmless(path: Path) -> str:
    """The file is refused, dry or not, and its command has not run."""
    said = [attempt(words.format(path)) for words in ("train {} --dry-run", "train {} --out o")]
    if Path("A_COMMAND_RAN").exists():
        return "the command ran"
    return "refused" if all("error: " in text for text in said) else "\n".join(said)


def smiles(path: Path) -> str:
    """Each line of the list as a molecule: what is said of it, and no unexpected error."""
    said = []
    for k, line in enumerate(path.read_text().split()):
        text = attempt(f"conformers {line} --n 20 --budget 0.1 --out m{k}")
        said.append(f"{line}: {text}")
    return "\n".join(said)


ANY = (0, 2, 3)
READ = (0,)
CASES = (
    Case("cif_symmetry_hm_old_symbol.cif", crystals, r"^Na4 Cl4$", READ),
    Case("cif_symmetry_hall_only.cif", crystals, r"^Na4 Cl4$", READ),
    Case("cif_symmetry_unknown_symbol.cif", CRYSTALS, r"space group"),
    Case("cif_symmetry_ops_tag_uppercase.cif", crystals, r"^Na4 Cl4$", READ),
    Case("cif_symmetry_short_P21c.cif", crystals, r"^C4$", READ),
    Case("cif_symmetry_R-3m_H.cif", crystals, r"^Bi6$", READ),
    Case("cif_symmetry_R-3m_rhombohedral_axes.cif", crystals, r"^Bi2$", READ),
    Case("cif_symmetry_origin_choice_2.cif", crystals, r"^Si8$", READ),
    Case("cif_special_position_3_digits.cif", crystals, r"^Mg2$|Å apart", (0, 2)),
    Case("cif_label_HO1_holmium.cif", crystals, r"^H4 C1 O1$|formula", (0, 2)),
    Case("cif_formula_sum_disagrees.cif", CRYSTALS, r"formula|H"),
    Case("cif_attached_hydrogens_ignored.cif", CRYSTALS, r"hydrogen"),
    Case("cif_tags_uppercase.cif", crystals, r"^Na4 Cl4$", READ),
    Case("cif_data_global_block.cif", crystals, r"^Na1 Cl1$|^Na4 Cl4$", READ),
    Case("crystal_overlap.cif", CRYSTALS, r"Å apart"),
    Case("crystal_angles_radians.npz", CRYSTALS, r"degrees"),
    Case("crystal_cartesian_as_fractional.npz", CRYSTALS, r"apart|fraction|same place"),
    Case("crystal_pbc_false.extxyz", CRYSTALS, r"periodic"),
    Case("pdb_two_chains_same_id_TER.pdb", chains, r"(?s)^\w+\n\w+$|error", ANY),
    Case("pdb_frames_without_MODEL.pdb", chains, r"repeat|MODEL|restart", ANY),
    Case("mmcif_two_label_chains_one_auth.cif", chains, r"(?s)^\w+\n\w+|error", ANY),
    Case("pdb_HIE_last.pdb", chains, r"^AAAAAAAH|HIE 8", ANY),
    Case("pdb_CYX_middle.pdb", chains, r"^AAAACAAA|CYX 5", ANY),
    Case("pdb_blank_occupancy.pdb", chains, r"^[A-Z]+", READ),
    Case("pdb_nan.pdb", PROTEINS, r"pdb_nan"),
    Case("mmcif_no_group_PDB_column.cif", chains, r"^[A-Z]+", READ),
    Case("mmcif_no_alt_id_column.cif", chains, r"^[A-Z]+", READ),
    Case("protein_nm.npz", PROTEINS, r"nm"),
    Case("sdf_charge_states_merged.sdf", molecules, r"(?s)^2 molecules.*-2 ", READ),
    Case("sdf_isotopologues_merged.sdf", molecules, r"^3 molecules", READ),
    Case("sdf_allene_enantiomers_mixed.sdf", molecules, r"3 conformers, 1 other", READ),
    Case("sdf_split_leak_a_plain.sdf", leaks, r"^10 molecules, 0 in two splits", READ),
    Case("sdf_split_leak_b_atom_maps.sdf", molecules, r"^\d+ molecules", READ),
    Case("sdf_bohr.sdf", MANY, r"bohr"),
    Case("sdf_flat_but_flagged_3D.sdf", MANY, r"two-dimensional|2D|flat"),
    Case("sdf_error_hides_reason_counts.sdf", MANY, r"Bond line too short|too short"),
    Case("sdf_any_bond.sdf", MANY, r"order"),
    Case("xyz_dissociated_frames.extxyz", ONE, r"frame 4", (0, 2)),
    Case("xyz_charge_1plus.extxyz", charge, r"charge 1$|line", (0, 2)),
    Case("xyz_charge_0.9999999.extxyz", charge, r"charge 1$", READ),
    Case("xyz_cation_without_charge.extxyz", ONE, r"(?s)charge=.*smiles=|smiles=.*charge="),
    Case("xyz_charge_changes_between_frames.xyz", ONE, r"charge"),
    Case("xyz_comment_equals.xyz", ONE, r"trained|steps", READ),
    Case("xyz_superscript_digit.xyz", ONE, r"element"),
    Case("xyz_integer_species.xyz", AUDIT, r"", READ),
    Case("xyz_deuterium.xyz", ONE, r"error: ", (2,)),
    Case("extxyz_energy_None.extxyz", AUDIT, r"(?s)frame.*energy|energy.*frame"),
    Case("extxyz_energy_with_unit.extxyz", AUDIT, r"(?s)frame.*energy|energy.*frame"),
    Case("extxyz_forces_other_names.extxyz", AUDIT, r"dft_force|DFT_energy", (0, 2)),
    Case("checkpoint_nan_weights.safetensors", nan_weights, r"not finite"),
    Case("metrics_binary_tail.jsonl", tail, r"trained|steps|finished", READ),
    Case("text_bom.cif", crystals, r"^[A-Z]", READ),
    Case("text_bom.extxyz", charge, r"charge 0$", READ),
    Case("text_bom.smi", "conformers {} --n 20 --budget 0.1 --out o", r"", (0, 3)),
    Case("text_latin1.pdb", chains, r"^[A-Z]+", READ),
    Case("text_latin1.sdf", molecules, r"^\d+ molecules", READ),
    Case("text_latin1.yaml", "train {} --out o", r"x\.xyz"),
    Case("smiles_list.txt", smiles, r"", READ),
    Case("config.hang.*.yaml", "train {} --dry-run"),
    Case("config.security.*.yaml", harmless, r"^refused$", READ),
    Case("config.traceback.*.yaml", "train {} --dry-run"),
    Case("run_config.*.yaml", stored_config),
    Case("crystals.*", CRYSTALS),
    Case("proteins.*", PROTEINS),
    Case("forces.traceback.small.npz", FORCES, r"steps|figure", READ),  # few frames, good ones
    Case("forces.*", FORCES),
    Case("voxels.*", VOXELS),
    Case("reference.*", CONFORMERS),
    Case("conformer_set.*", MANY),
    Case("conformers.*", ONE),
    Case("audit.*", AUDIT),
)


def attempt(words: str) -> str:
    """What a command says, with its exit code; ``unexpected`` where it does not end well."""
    from orbitwise.cli import main

    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = main(words.split(" "))
    return f"{said.getvalue()}\nexit code {code}"


def command(words: str) -> str:
    """The same; leaves with the exit code where that is not 0."""
    text = attempt(words)
    if not text.endswith("exit code 0"):
        print(text)
        raise SystemExit(int(text.rpartition(" ")[2]))
    return text


def tried(case: Case, path: Path) -> str:
    """Nothing where all is right, else what is wrong."""
    place = Path(tempfile.mkdtemp(prefix="faults-"))
    out, begin = place / "said.txt", time.monotonic()
    child = os.fork()
    if child == 0:
        _child(case, path, place, out)
    _, status = os.waitpid(child, 0)
    said = out.read_text(errors="replace") if out.exists() else ""
    shutil.rmtree(place, ignore_errors=True)
    seconds = time.monotonic() - begin
    if os.WIFSIGNALED(status):
        kind = signal.Signals(os.WTERMSIG(status)).name
        return f"killed by {kind} after {seconds:.0f} s"
    code = os.WEXITSTATUS(status)
    if "unexpected error" in said or "Traceback" in said:
        return f"traceback: {_last(said)}"
    if code not in case.codes:
        return f"exit code {code}: {_last(said)}"
    if re.search(case.says, said.strip(), re.MULTILINE) is None:
        return f"does not say {case.says!r}: {_last(said)}"
    return ""


def _child(case: Case, path: Path, place: Path, out: Path) -> None:
    """One file in a process of its own; never returns."""
    code = 1
    try:
        os.chdir(place)
        limit = GIGABYTES * 2**30
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        signal.alarm(SECONDS)
        handle = os.open(out, os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout = open(1, "w", closefd=False, errors="replace")  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, errors="replace")  # noqa: SIM115
        copy = place / path.name
        for neighbour in path.parent.glob(path.name.partition("_")[0] + "_*"):
            shutil.copy(neighbour, place)
        shutil.copy(path, copy)
        code = _read(case, copy)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _read(case: Case, path: Path) -> int:
    from orbitwise.errors import OrbitwiseError

    if isinstance(case.reads, str):
        text = attempt(case.reads.replace("{}", str(path)))
        print(text)
        return int(text.rpartition(" ")[2])
    try:
        print(case.reads(path))
    except OrbitwiseError as error:
        print(f"error: {error}")
        return 2
    return 0


def _last(said: str) -> str:
    lines = [line for line in said.strip().splitlines() if not line.startswith("exit code")]
    return " | ".join(lines[-2:])[:300]


def main(*, only: str = "*", folder: Path = FOLDER) -> None:
    """``only``: files whose names match."""
    import torch

    import orbitwise.cli  # noqa: F401  once, before the forks

    torch.set_num_threads(1)
    begin = time.perf_counter()
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "README.md")
    files = [p for p in files if fnmatch.fnmatch(p.name, only)]
    wrong = 0
    for path in files:
        case = next((c for c in CASES if fnmatch.fnmatch(path.name, c.pattern)), None)
        problem = "no case names it" if case is None else tried(case, path)
        wrong += bool(problem)
        print(f"{'open' if problem else 'ok  '}  {path.name}  {problem}", flush=True)

    print(f"{len(files)} files tried, {wrong} open")
    if only == "*" and files:
        seconds = time.perf_counter() - begin
        note = "files of both folders of faults, each in a process of its own"
        write_rows(
            "library",
            [
                Row("faults.tried", len(files), seconds=seconds, note=note),
                Row("faults.open", wrong, goal="0", seconds=seconds, note=note),
            ],
        )


if __name__ == "__main__":
    benchmark(main, needs=[FOLDER], quick={"only": "pdb_nan*"})

"""Replica-exchange references of alanine di-, tri- and tetrapeptide (AMBER ff96, OBC solvent, 300
K).

    python -m benchmarks.references.reference_peptides [NAME ...]    three to ten minutes each

Each goes to ``benchmarks/references/NAME_ff96_obc.npz``: what
``orbitwise.molecules.files.reference.Reference`` reads (torsions φ1 ψ1 φ2 ..., energies in kT, mean
bond lengths, one minimum per backbone state with its population) and ``positions: (F, N, 3)``
float32 in Å, frames of the target temperature. All kernels are exact; torsion moves turn the amides
too, so that cis amides have their proper share. Where the published ensemble of alanine dipeptide
lies beside the project, the first one is compared with it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import SHARED, kept
from benchmarks.tools.rows import Row, commit_id, write_rows
from orbitwise.data.folder import replacing
from orbitwise.energies import Counted
from orbitwise.metrics.divergence import compare_angles
from orbitwise.metrics.mixing import block_average, effective_sample_size, split_rhat
from orbitwise.metrics.torus import dihedral
from orbitwise.molecules import KeepStereo, OpenMMEnergy, Stereo, TorsionMove, alanine_peptide
from orbitwise.molecules.molecule import embed
from orbitwise.search import HMC, Cycle, ReplicaExchange, geometric_ladder, minimise, run, warmup

FOLDER = "benchmarks/references"
PUBLISHED = SHARED / "alanine_dipeptide/aldp_300K.npz"
FIELD, SOLVENT = "ff96", "obc"
TEMPERATURE, HOTTEST = 300.0, 600.0
CHAINS, LEAPFROG, SEED = 16, 8, 1000
# name: (residues, temperatures, steps, frames kept)
RUNS = {
    "alanine_dipeptide": (1, 6, 3600, 4000),
    "alanine_tripeptide": (2, 7, 4800, 2800),
    "alanine_tetrapeptide": (3, 8, 4800, 2200),
}
STATES = ("beta", "alpha", "left")  # φ ≤ 0 outside and inside -120° < ψ ≤ 60°, and φ > 0


def state_of(phi: Tensor, psi: Tensor) -> Tensor:
    """Number in ``STATES`` of each residue, from radians."""
    alpha = (psi > np.radians(-120)) & (psi <= np.radians(60))
    return torch.where(phi > 0, 2, alpha.long())


def compute(name: str) -> list[Row]:
    residues, rungs, steps, frames = RUNS[name]
    begin, processor = time.monotonic(), time.process_time()
    peptide = alanine_peptide(residues, FIELD, SOLVENT)
    energy = Counted(OpenMMEnergy(peptide.system, TEMPERATURE))
    generator = torch.Generator().manual_seed(SEED)
    starts = torch.from_numpy(embed(peptide.mol, CHAINS, SEED)).float()
    starts = minimise(starts - starts.mean(1, keepdim=True), energy, tolerance=5.0, max_steps=200).x
    stereo = Stereo.from_mol(peptide.mol, starts[0])
    inner = Cycle(
        (
            KeepStereo(HMC(step_size=0.02, leapfrog_steps=LEAPFROG), stereo),
            KeepStereo(TorsionMove.from_mol(peptide.mol), stereo),
        )
    )
    kernel = ReplicaExchange(inner, geometric_ladder(TEMPERATURE, HOTTEST, rungs))
    state = kernel.init(starts.expand(rungs, *starts.shape).contiguous(), energy)
    state = warmup(kernel, state, energy, steps // 5, generator=generator)
    trace = run(kernel, state, energy, steps - steps // 5, generator=generator, row=0)

    x = trace.x.transpose(0, 1)  # (chains, frames, N, 3)
    atoms = torch.stack([peptide.phi, peptide.psi], 1).flatten(0, 1)
    angles = dihedral(x.double(), atoms)
    waves = torch.cat([angles.cos(), angles.sin()], -1)
    rhat, ess = split_rhat(waves).max().item(), effective_sample_size(waves).min().item()
    cis = (dihedral(x, peptide.omega).abs() < np.pi / 2).any(-1).double()
    residue = state_of(angles[..., 0::2], angles[..., 1::2])
    label = (residue * 3 ** torch.arange(residues - 1, -1, -1)).sum(-1)
    share = block_average(torch.nn.functional.one_hot(label, 3**residues).double())
    calls = energy.counts
    meta = {
        "name": name,
        "residues": residues,
        "energy": f"{FIELD} + {SOLVENT} (OpenMM)",
        "temperature": TEMPERATURE,
        "torsion_names": [f"{kind}{k + 1}" for k in range(residues) for kind in ("phi", "psi")],
        "states": ["-".join(names) for names in product(STATES, repeat=residues)],
        "seed": SEED,
        "chains": CHAINS,
        "temperatures": (TEMPERATURE / kernel.betas).tolist(),
        "steps": trace.steps,
        "step_size": trace.state.step_size.flatten(1)[:, 0].tolist(),
        "acceptance": trace.acceptance.mean(-1).tolist(),
        "swap_rate": trace.rates.swap_rate.tolist(),
        "round_trips": int(trace.state.round_trips.sum()),
        "left_stereo_class": trace.count("left_class"),
        "cis_amides": cis.mean().item(),
        "rhat": rhat,
        "effective_samples": ess,
        "commit": commit_id(),
        "command": f"python -m benchmarks.references.reference_peptides {name}",
    }
    save(
        kept(FOLDER) / f"{name}_{FIELD}_{SOLVENT}.npz",
        peptide,
        x,
        trace.energy.T,
        angles,
        label,
        share,
        meta,
        frames,
    )
    print(
        json.dumps({k: meta[k] for k in ("acceptance", "swap_rate", "round_trips", "cis_amides")})
    )
    common = {
        "seeds": [SEED],
        "energy_calls": sum(c.energy for c in calls.values()),
        "seconds": time.monotonic() - begin,
        "note": (
            f"{CHAINS} chains, {trace.steps} steps, {rungs} temperatures,"
            f" {time.process_time() - processor:.0f} s of processor time"
        ),
    }
    cis_error = block_average(cis[..., None]).error.item()
    rows = [
        Row(f"{name}_reference.rhat", rhat, goal="<= 1.01", **common),
        Row(f"{name}_reference.ess", ess, **common),
        Row(f"{name}_reference.cis_amides", cis.mean().item(), cis_error, **common),
    ]
    for k, state in enumerate(STATES):
        part = block_average((residue == k).double())
        for r in range(residues):
            what = f"{name}_reference.{state}{r + 1}"
            rows.append(Row(what, part.mean[r].item(), part.error[r].item(), **common))
    return rows


def save(path, peptide, x, energy, angles, label, share, meta, frames) -> None:
    """Everything thinned evenly over the run; minima from the frame of lowest energy of each state
    that was seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    total = energy.numel()
    fine, coarse = (torch.linspace(0, total - 1, n).long() for n in (min(total, 20_000), frames))
    # frame after frame, all chains, so that an even choice is even in time and over the chains
    flat = [a.transpose(0, 1).flatten(0, 1) for a in (x, angles, energy, label)]
    exact = OpenMMEnergy(peptide.system, TEMPERATURE)
    seen = [k for k in range(len(share.mean)) if (flat[3] == k).any()]
    lowest = [torch.where(flat[3] == k, flat[2], torch.inf).argmin() for k in seen]
    minima = minimise(flat[0][torch.stack(lowest)].double(), exact, tolerance=0.01, max_steps=2000)
    i, j = peptide.bonds.T
    lengths = (flat[0][:, i] - flat[0][:, j]).norm(dim=-1).double()
    positions = flat[0][coarse]
    meta = meta | {
        "minima_states": seen,
        "minima_energy": minima.energy.tolist(),
        "total_frames": total,
    }
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            meta=np.array(json.dumps(meta)),
            torsions=flat[1][fine].numpy().astype(np.float16),
            energy=flat[2][fine].numpy().astype(np.float32),
            bonds=peptide.bonds.numpy(),
            bond_mean=lengths.mean(0).numpy(),
            bond_std=lengths.std(0).numpy(),
            minima=minima.x.numpy().astype(np.float32),
            population=share.mean.numpy(),
            population_error=share.error.numpy(),
            species=peptide.species.numpy(),
            positions=(positions - positions.mean(1, keepdim=True)).numpy().astype(np.float32),
        )
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


def compare() -> list[Row]:
    """The dipeptide against the published ensemble, whose atoms are in the same order."""
    path = kept(FOLDER) / f"alanine_dipeptide_{FIELD}_{SOLVENT}.npz"
    with np.load(PUBLISHED) as theirs, np.load(path) as ours:
        their_x = 10.0 * torch.from_numpy(theirs["positions_nm"]).double()
        mine, bonds = torch.from_numpy(ours["torsions"]).double(), torch.from_numpy(ours["bonds"])
        mean, std = ours["bond_mean"], ours["bond_std"]
        meta = json.loads(str(ours["meta"]))
        share, error = ours["population"], ours["population_error"]
    peptide = alanine_peptide(1, FIELD, SOLVENT)
    angles = dihedral(their_x, torch.cat([peptide.phi, peptide.psi]))
    note = "10,000 published frames, taken as independent, against the replica exchange here"
    rows = []
    for k, name in enumerate(("phi", "psi")):
        generator = torch.Generator().manual_seed(SEED)
        js = compare_angles(mine[:, k], angles[:, k], 36, generator=generator)
        text = f"{note}; {js.floor:.2g} for two sets of one distribution"
        rows.append(
            Row(f"alanine_dipeptide_reference.published_{name}_js", js.value, js.error, note=text)
        )
    label = state_of(*angles.T)
    for k, state in enumerate(STATES):
        p = (label == k).double().mean().item()
        spread = float(np.hypot((p * (1 - p) / len(label)) ** 0.5, error[k]))
        what = f"alanine_dipeptide_reference.published_{state}_difference"
        rows.append(Row(what, share[k] - p, spread, note=f"{note}; published {p:.4f}"))
    i, j = bonds.T
    lengths = (their_x[:, i] - their_x[:, j]).norm(dim=-1)
    worst = np.abs(mean - lengths.mean(0).numpy()).max()
    ratio = std / lengths.std(0).numpy()
    what = "alanine_dipeptide_reference.published_bond_"
    rows.append(Row(what + "mean_difference", worst, note=f"largest of 21 bonds, Å; {note}"))
    rows.append(Row(what + "std_ratio", ratio.mean(), ratio.std() / len(ratio) ** 0.5, note=note))
    cis = (dihedral(their_x, peptide.omega).abs() < np.pi / 2).any(-1).double().mean().item()
    rows.append(
        Row(
            "alanine_dipeptide_reference.published_cis_amides",
            cis,
            note=f"here {meta['cis_amides']:.4f}",
        )
    )
    return rows


def main(names: Sequence[str] = tuple(RUNS)) -> None:
    torch.set_num_threads(1)
    for name in names:
        write_rows("peptides", compute(name))
        if name == "alanine_dipeptide" and PUBLISHED.exists():
            write_rows("peptides", compare())


if __name__ == "__main__":
    benchmark(
        main,
        needs=["openmm"],
        quick={
            "CHAINS": 4,
            "RUNS": {"alanine_dipeptide": (1, 2, 40, 20)},
            "names": ["alanine_dipeptide"],
        },
    )

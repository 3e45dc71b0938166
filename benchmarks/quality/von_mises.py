"""VonMisesNet on torsion profiles: what its mixtures could fit, what its laws reach on other
molecules, and what its conformers cost.

    python -m benchmarks.quality.von_mises [capacity] [network] [speed] [joint] [--runs FOLDER]

``capacity``: median KL from the 950 profiles to the best mixture of K components (expectation
maximisation on the grid, κ at most 100). ``network``: three seeds of the preset are trained, or
taken where they are finished; mean and median KL from the profiles of held-out molecules, against
simpler laws. ``speed``: conformers a second of a trained network (start geometry, laws and clashes
included) over those of ETKDGv3, same molecules, one thread; effective sample size of the conformers
under MMFF94 importance weights with one start geometry. ``joint``: mutual information of the two
torsions of held-out molecules that have two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import SHARED, kept
from benchmarks.tools.rows import Row, write_rows
from orbitwise.errors import InputError
from orbitwise.methods.molecules import von_mises
from orbitwise.molecules import MMFF94, Rotors, embed
from orbitwise.molecules.files.torsion_profiles import read_torsion_profiles
from orbitwise.molecules.search.torsion_sampling import importance_ess, sample_torsions
from orbitwise.processes import fit_von_mises
from orbitwise.processes.von_mises import VonMisesMixture, even_angles
from orbitwise.runs.config import load

Part = Literal["capacity", "network", "speed", "joint"]
DATA = SHARED / "torsion_profiles" / "torsion_profiles.npz"
COMPONENTS, RESTARTS, STEPS = (1, 2, 3, 4, 6), 4, 200
SEEDS, PRESET, OVERRIDES = (0, 1, 2), "von_mises/default", ()
MOLECULES, CONFORMERS, DRAWS, GRID = 20, 100, 500, 36
TEMPERATURE = 300.0


def capacity() -> list[Row]:
    p = read_torsion_profiles(DATA).shares(TEMPERATURE)
    grid = even_angles(p.shape[1], p).unsqueeze(-1).expand(-1, len(p))
    rows = []
    for k in COMPONENTS:
        generator = torch.Generator().manual_seed(k)
        fitted = fit_von_mises(
            grid,
            k,
            weight=p.T,
            bounds=(0.0, 100.0),
            restarts=RESTARTS,
            steps=STEPS,
            generator=generator,
        )
        kl = fitted.kl_from(p)
        note = f"nats; mean {float(kl.mean()):.4f}, 90 % {float(kl.quantile(0.9)):.4f}"
        rows.append(
            Row(
                f"von_mises.kl_k{k}",
                float(kl.median()),
                error=_median_error(kl),
                goal="<= 0.005" if k == 4 else None,
                seeds=[k],
                note=f"{note}, {len(kl)} rotors",
            )
        )
    return rows


def _median_error(values: torch.Tensor) -> float:
    """Bootstrap over rotors."""
    generator = torch.Generator().manual_seed(0)
    pick = torch.randint(0, len(values), (200, len(values)), generator=generator)
    return float(values[pick].median(1).values.std())


def network(runs: Path) -> list[Row]:
    found, seconds = [], 0.0
    for seed in SEEDS:
        config = load(PRESET, [f"data={DATA}", f"train.seed={seed}", *OVERRIDES])
        seconds += von_mises.train(config, runs / f"seed{seed}").result.seconds
        found.append(von_mises.held_out_divergences(runs / f"seed{seed}"))
        print(*von_mises.lines(found[-1]), sep="\n")

    own = torch.tensor([d.network for d in found], dtype=torch.float64)
    error = own.std(0) / len(own) ** 0.5 if len(own) > 1 else torch.full((2,), torch.nan)
    common: dict[str, Any] = {"seeds": list(SEEDS), "seconds": round(seconds, 1)}
    rows = [
        Row(f"von_mises.heldout_kl_{name}", float(v), error=float(e), note="nats", **common)
        for name, v, e in zip(("mean", "median"), own.mean(0), error, strict=True)
    ]
    simple = found[0]
    for name, (mean, median) in (
        ("uniform", simple.uniform),
        ("kinds", simple.kinds),
        ("30_draws", simple.histogram_30),
        ("300_draws", simple.histogram_300),
    ):
        note = f"nats, mean; median {median:.3f}; {simple.rotors} rotors of held-out molecules"
        rows.append(Row(f"von_mises.heldout_kl_mean.{name}", mean, note=note))
    return rows


def speed(runs: Path) -> list[Row]:
    torch.set_num_threads(1)
    config, net, _ = von_mises.load(runs / f"seed{SEEDS[0]}")
    smiles = list(dict.fromkeys(read_torsion_profiles(DATA, ["test"]).smiles))
    chosen = smiles[:: max(1, len(smiles) // MOLECULES)][:MOLECULES]
    molecules = [Chem.AddHs(Chem.MolFromSmiles(s)) for s in chosen]

    ours = theirs = made = tries = failed = 0.0
    for mol in molecules:
        took, drawn = _timed(
            lambda m=mol: von_mises.conformers(net, m, CONFORMERS, config.sampling)
        )
        ours, made = ours + took, made + len(drawn.positions)
        tries, failed = tries + drawn.tries, failed + drawn.failed
        theirs += _timed(lambda m=mol: _etkdg(m, CONFORMERS))[0]
    asked = CONFORMERS * len(molecules)
    note = (
        f"{made / ours:.0f} against {asked / theirs:.0f} a second on {len(molecules)} molecules,"
        f" {CONFORMERS} each; {failed:.0f} of {asked} failed"
    )
    ratio = Row(
        "von_mises.conformers_per_second_over_etkdg",
        (made / ours) / (asked / theirs),
        goal=">= 2",
        seeds=[0],
        seconds=round(ours + theirs, 2),
        note=note,
    )

    shares: dict[str, list[float]] = {"network": [], "uniform": []}
    for mol in molecules:
        rotors = Rotors.from_mol(mol)
        if rotors is None:
            continue
        energy = MMFF94(mol, temperature=TEMPERATURE).double()
        law = von_mises.torsion_laws(net, mol, rotors)
        flat = VonMisesMixture(*(torch.zeros(len(rotors), 1) for _ in range(3)))
        for kind, each in (("network", law), ("uniform", flat)):
            drawn = sample_torsions(mol, rotors, each, DRAWS, seed=1)
            with torch.no_grad():
                ess = importance_ess(drawn, energy(drawn.positions))
            shares[kind].append(ess / DRAWS)
    rows = [ratio]
    for kind, values in shares.items():
        v = torch.tensor(values, dtype=torch.float64)
        rows.append(
            Row(
                f"von_mises.importance_ess.{kind}",
                float(v.mean()),
                error=float(v.std() / len(v) ** 0.5),
                seeds=[1],
                energy_calls=DRAWS * len(v),
                note=f"share of {DRAWS} draws, {len(v)} molecules, rigid rotors, MMFF94 at 300 K;"
                f" median {float(v.median()):.3f}",
            )
        )
    return rows


def joint() -> list[Row]:
    """Mutual information of the two torsions of held-out molecules with two rotors: what a product
    of their exact marginals loses."""
    smiles = dict.fromkeys(read_torsion_profiles(DATA, ["test"]).smiles)
    lost = []
    for text in smiles:
        mol = Chem.AddHs(Chem.MolFromSmiles(text))
        rotors = Rotors.from_mol(mol)
        if rotors is None or len(rotors) != 2 or len(lost) == MOLECULES:
            continue
        try:
            start = torch.from_numpy(embed(mol, 1, 1))
        except InputError as error:
            print(f"left out: {error}")
            continue
        grid = even_angles(GRID, start)
        asked = torch.cartesian_prod(grid, grid)
        x = rotors.turn(
            start.expand(len(asked), -1, -1),
            torch.arange(2).expand(len(asked), -1),
            asked - rotors.angles(start),
        )
        with torch.no_grad():
            energy = MMFF94(mol, temperature=TEMPERATURE).double()(x)
        p = (-energy).softmax(0).view(GRID, GRID)
        product = p.sum(0) * p.sum(1, keepdim=True)
        lost.append(float((torch.xlogy(p, p) - torch.xlogy(p, product)).sum()))
    values = torch.tensor(lost, dtype=torch.float64)
    note = (
        f"nats, {len(values)} molecules with two rotors, rigid, MMFF94 at 300 K, {GRID} x {GRID}"
        f" angles; median {float(values.median()):.3f}, largest {float(values.max()):.3f}"
    )
    return [
        Row(
            "von_mises.price_of_independence",
            float(values.mean()),
            error=float(values.std() / len(values) ** 0.5),
            seeds=[1],
            energy_calls=GRID**2 * len(values),
            note=note,
        )
    ]


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.process_time()
    result = call()
    return time.process_time() - begin, result


def _etkdg(mol: Chem.Mol, n: int) -> None:
    parameters = AllChem.ETKDGv3()
    parameters.randomSeed, parameters.numThreads = 1, 1
    AllChem.EmbedMultipleConfs(Chem.Mol(mol), n, parameters)


def main(
    parts: Sequence[Part] = ("capacity", "network", "speed", "joint"),
    *,
    runs: Path | None = None,
) -> None:
    folder = runs or kept("runs") / "von_mises"
    for part in parts:
        rows = {
            "capacity": capacity,
            "network": lambda: network(folder),
            "speed": lambda: speed(folder),
            "joint": joint,
        }[part]()
        write_rows("molecules", rows)


if __name__ == "__main__":
    quick = {
        "COMPONENTS": (2,),
        "RESTARTS": 1,
        "STEPS": 20,
        "SEEDS": (0,),
        "PRESET": "von_mises/small",
        "OVERRIDES": ("train.steps=3", "train.batch_size=4"),
        "MOLECULES": 2,
        "CONFORMERS": 5,
        "DRAWS": 20,
        "GRID": 12,
    }
    benchmark(main, needs=[DATA], quick=quick)

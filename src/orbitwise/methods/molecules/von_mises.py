"""Laws of the torsions of any molecule from its graph: VonMisesNet (arXiv 2306.07472).

Trained on torsion profiles by the cross-entropy to their Boltzmann laws; conformers are an
embedding with its torsions drawn anew. ``train``, ``sample``, ``evaluate`` and ``report`` work on a
run folder.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from rdkit import Chem

from orbitwise.data.folder import replacing, writable_folder
from orbitwise.errors import InputError
from orbitwise.methods.molecules.von_mises_result import Divergences, compare, lines, write_page
from orbitwise.molecules.files.conformers import write_conformer_sdf, write_conformer_set
from orbitwise.molecules.files.sets import Conformers, read_smiles
from orbitwise.molecules.files.torsion_profiles import TorsionProfiles, read_torsion_profiles
from orbitwise.molecules.search.rotors import Rotors
from orbitwise.molecules.search.torsion_sampling import TorsionSamples, sample_torsions
from orbitwise.molecules.torsion_graph import TorsionData
from orbitwise.molecules.torsion_network import VonMisesNet
from orbitwise.networks.seeded import seeded
from orbitwise.objectives.angles import angle_likelihood
from orbitwise.processes.von_mises import VonMisesMixture
from orbitwise.runs.config import Config, Plan, load_run
from orbitwise.runs.folder import training, works_in
from orbitwise.runs.outcome import Outcome
from orbitwise.runs.own import OrOwn, OwnNetwork, check_parts
from orbitwise.runs.training import in_words, train_run, unfinished
from orbitwise.training import TrainConfig, load_weights
from orbitwise.training import train as fit
from orbitwise.training.checkpoint import NAME


class TorsionNetworkConfig(Config):
    """``hidden`` features a vertex, ``layers``, ``components`` of the mixture of one hand."""

    hidden: int = Field(64, ge=4)
    layers: int = Field(6, ge=1)
    components: int = Field(4, ge=1)

    def build(self, seed: int) -> VonMisesNet:
        """Weights drawn from ``seed``; the caller's random stream stays as it was."""
        with seeded(seed):
            return VonMisesNet(self.hidden, self.layers, self.components)


class TorsionSamplingConfig(Config):
    """``count`` conformers of a molecule, from ``starts`` embeddings; ``tries`` for one that
    clashes."""

    count: int = Field(50, ge=1)
    starts: int = Field(4, ge=1)
    tries: int = Field(5, ge=1)


class VonMisesConfig(Config):
    """``data``: torsion profiles (.npz), ``temperature`` in K of their Boltzmann laws."""

    data: Path
    temperature: float = Field(300.0, gt=0)
    network: Annotated[TorsionNetworkConfig, OrOwn(OwnNetwork)] = TorsionNetworkConfig()
    train: TrainConfig = TrainConfig()
    sampling: TorsionSamplingConfig = TorsionSamplingConfig()


def plan(config: VonMisesConfig) -> Plan:
    """No energy is ever called; the figure is the rotors that training reads."""
    read_torsion_profiles(config.data, ["train"])
    parameters = sum(p.numel() for p in config.network.build(0).parameters())
    return Plan(parameters, 0, config.train.steps * config.train.batch_size)


@works_in("out", training)
def train(config: VonMisesConfig, out: str | Path) -> Outcome:
    """Train in the folder ``out``, or finish what was begun there."""
    check_parts(config)
    profiles = read_torsion_profiles(config.data, ["train"])
    data, out = profiles.data(config.temperature), writable_folder(out)
    network = config.network.build(config.train.seed)
    result = train_run(
        config,
        out,
        partial(fit, network, angle_likelihood, data, config.train),
        begun=(out / NAME).exists(),
        apart_from=["sampling"],
        facts={"data": _digest(profiles)},
    )
    about = f"{len(data)} rotors of {len(set(profiles.smiles))} molecules"
    return Outcome(out, result, [in_words(out, result), about])


def _digest(profiles: TorsionProfiles) -> str:
    found = hashlib.sha256("".join(profiles.smiles).encode())
    found.update(profiles.atoms.astype("<i8").tobytes())
    found.update(profiles.energy_kcal.astype("<f4").tobytes())
    return found.hexdigest()


def load(run: str | Path, *, trust: bool = False) -> tuple[VonMisesConfig, VonMisesNet, int]:
    """The configuration of a run, its network with the averaged weights, and their step."""
    config = load_run(run, trust=trust)
    network = config.network.build(config.train.seed)
    step = load_weights(Path(run) / NAME, network).step
    return config, network.eval(), step


@torch.no_grad()
def torsion_laws(network: VonMisesNet, mol: Chem.Mol, rotors: Rotors) -> VonMisesMixture:
    """The law of each rotor, ``(R, 2 K)``; ``mol`` has explicit hydrogens."""
    data = TorsionData.of([mol], [(0, atoms) for atoms in rotors.atoms.tolist()])
    return network.law(data[torch.arange(len(rotors))])


def conformers(
    network: VonMisesNet, mol: Chem.Mol, n: int, sampling: TorsionSamplingConfig, seed: int = 0
) -> TorsionSamples:
    """``n`` conformers of one molecule, those that clash at every try counted."""
    rotors = Rotors.from_mol(mol)
    law = None if rotors is None else torsion_laws(network, mol, rotors)
    return sample_torsions(
        mol, rotors, law, n, starts=sampling.starts, tries=sampling.tries, seed=seed
    )


@works_in("run")
def sample(
    run: str | Path,
    n: int | None = None,
    seed: int = 0,
    molecules: Path | None = None,
    *,
    trust: bool = False,
) -> Outcome:
    """Conformers of the molecules of the held-out profiles, or of the SMILES in the file
    ``molecules``: ``samples.npz`` and ``.sdf``. Raises ``InputError`` for a SMILES that cannot be
    used, with its line; what RDKit cannot embed, and what clashes, is said by name."""
    run = writable_folder(run)
    config, network, step = load(run, trust=trust)
    if molecules is None:
        held_out = dict.fromkeys(read_torsion_profiles(config.data, ["test"]).smiles)
        asked = [
            Conformers(Chem.AddHs(Chem.MolFromSmiles(s)), np.zeros((0, 0, 3)), s, s, "test")
            for s in held_out
        ]
    else:
        asked = read_smiles(molecules, seed)

    count, tries = n or config.sampling.count, config.sampling.tries
    result, failed = [], []
    if count < 1:
        raise InputError(f"n must be at least 1, got {n}")
    for m in asked:  # molecules of different sizes
        try:
            drawn = conformers(network, m.mol, count, config.sampling, seed)
        except InputError as error:  # nothing to start from
            failed.append(f"{m.smiles}: no conformer: {error}")
            continue
        if drawn.failed:
            failed.append(f"{m.smiles}: {drawn.failed} of {count} clashed at all {tries} tries")
        x = drawn.positions - drawn.positions.mean(1, keepdim=True)
        result.append(Conformers(m.mol, x.numpy().astype("f4"), m.smiles, m.where, "test"))
    whole = [m for m in result if len(m)]
    if not whole:
        raise InputError(f"{run}: there is no conformer of any molecule; {failed[0]}")
    write_conformer_set(run / "samples.npz", whole)
    write_conformer_sdf(run / "samples.sdf", whole)
    made = sum(map(len, result))
    text = [
        f"{run}: {made} conformers of {len(asked)} molecules in samples.sdf and samples.npz",
        *(f"warning: {line}" for line in failed),
        *unfinished(step, config.train.steps),
    ]
    return Outcome(run, result, text)


def held_out_divergences(run: str | Path, *, trust: bool = False) -> Divergences:
    """KL of the run's laws from the held-out profiles, and of simpler ones."""
    config, network, _ = load(run, trust=trust)
    known = read_torsion_profiles(config.data, ["train"])
    asked = read_torsion_profiles(config.data, ["test"])
    return compare(network, known, asked, config.temperature)


@works_in("run")
def evaluate(run: str | Path, *, trust: bool = False) -> Outcome:
    """The run's laws against the profiles of held-out molecules: ``summary.json`` and
    ``report.html``."""
    config, run = load_run(run, trust=trust), writable_folder(run)
    result = held_out_divergences(run, trust=trust)
    with replacing(run / "summary.json") as temporary:
        temporary.write_text(
            json.dumps({"config": config.resolved(), "divergences": asdict(result)}, indent=1)
        )
    page = write_page(run / "report.html", config, result)
    return Outcome(run, result, [*lines(result), f"report: {page}"])


report = evaluate  # the page is made from the comparison, which takes seconds

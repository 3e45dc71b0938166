"""Search-guided diffusion samplers (SGDS, arXiv 2505.19552): sample an energy from the energy
alone.

In rounds: a Searcher (annealing, chains, replica exchange; from the second round on with a novelty
bonus) fills a buffer, a Learner is trained on it by maximum likelihood with exact orbit targets and
then balanced against the energy on its own paths and on paths back from the buffer. PIS, TB, SubTB,
GAFN, MLE and adjoint matching are settings of it.
"""

from __future__ import annotations

from pathlib import Path

from orbitwise.data.buffer import ReplayBuffer
from orbitwise.data.folder import writable_folder
from orbitwise.energies import Counted
from orbitwise.errors import InputError
from orbitwise.methods.samplers.config import SGDSConfig, stage_key
from orbitwise.methods.samplers.evaluation import draw, judge_run, with_steps, write_samples
from orbitwise.methods.samplers.rounds import Rounds, State
from orbitwise.methods.samplers.targets import Target
from orbitwise.objectives.paths.sampler import DiffusionSampler
from orbitwise.runs.config import Plan, load_run, save_run
from orbitwise.runs.folder import training, works_in
from orbitwise.runs.outcome import Outcome
from orbitwise.runs.own import check_parts
from orbitwise.runs.stages import Pipeline, Stages


def plan(config: SGDSConfig) -> Plan:
    """Energy calls of search and training; those of the evaluation are counted apart."""
    target = config.energy.build()
    sampler = config.sampler.build(target, 1.0, config.seed, flows=config.objective.flows)
    paths = config.objective.own_paths(config.balance.batch_size, config.balance_steps)
    on_the_way = config.sampler.langevin or config.objective.energies_on_the_way
    states = config.sampler.schedule.steps if on_the_way else 1
    calls = config.rounds * (config.search.calls + int(paths * states))
    return Plan(sum(p.numel() for p in sampler.parameters()), calls)


@works_in("out", training)
def train(config: SGDSConfig, out: str | Path) -> Outcome:
    """Search and learn in the folder ``out``, or finish what was begun there."""
    if not config.balance_steps and (not config.likelihood_steps or config.search.method == "none"):
        raise InputError(
            "there is nothing to train: set balance_steps, or likelihood_steps with a search"
            " (search.method)"
        )
    check_parts(config)
    target = config.energy.build()
    folder = writable_folder(out)
    energy = Counted(target.energy)
    pipe = Pipeline(folder, energy.counts, {})
    save_run(config, folder)
    state = State(ReplayBuffer(config.buffer, energy.event_shape, priority=config.priority))
    Rounds(config, target, energy, state, folder).run(pipe)

    counts = {k: (c.energy, c.gradient) for k, c in energy.counts.items()}
    total = sum(e for e, _ in counts.values())
    spent = ", ".join(f"{k} {e:,} energies and {g:,} gradients" for k, (e, g) in counts.items())
    seconds = sum(pipe.seconds.values())
    return Outcome(folder, counts, [f"{folder}: {total:,} energy calls ({spent}), {seconds:.0f} s"])


def restore(config: SGDSConfig, folder: Path) -> tuple[DiffusionSampler, Target, dict]:
    """The trained learner of a run, its target, and ``seconds`` and ``evaluations`` of its
    stages."""
    target = config.energy.build()
    phase = "balance" if config.balance_steps else "likelihood"
    name, key = f"{phase}{config.rounds}", stage_key(config, phase, config.rounds)
    stages = Stages(folder)
    stage = stages.load(name, key)
    if stage is None:
        raise InputError(
            f"{folder}: the training is not finished; repeat the command that began it"
        )
    scale = float(stage.tensors["data_scale"])  # it may come from the search, and the noise with it
    sampler = config.sampler.build(target, scale, config.seed, flows=config.objective.flows)
    sampler.load_state_dict(stage.tensors)
    return with_steps(sampler.eval(), config.evaluation.steps), target, history(config, stages)


def history(config: SGDSConfig, stages: Stages) -> dict:
    """Seconds and evaluations of all finished stages of a run."""
    seconds, counts = {}, {}
    for number in range(1, config.rounds + 1):
        for phase in ("search", "likelihood", "balance", "novelty"):
            key = stage_key(config, phase, 2 if phase == "novelty" else number)
            stage = stages.load(f"{phase}{number}", key)
            if stage is None:
                continue
            seconds[f"{phase}{number}"] = stage.info["seconds"]
            for k, (e, g) in stage.info["evaluations"].items():
                before = counts.get(k, (0, 0))
                counts[k] = (before[0] + e, before[1] + g)
    return {"seconds": seconds, "evaluations": counts}


@works_in("run")
def sample(run: str | Path, n: int = 1000, seed: int = 0, *, trust: bool = False) -> Outcome:
    """Draw ``n`` independent samples with their importance weights into ``samples.npz`` (points:
    .extxyz too)."""
    config, folder = load_run(run, trust=trust), writable_folder(run)
    sampler, target, _ = restore(config, folder)
    energy = Counted(target.energy)
    with energy.stage("sampling"):
        drawn = draw(sampler, energy, n, seed, config.evaluation.batch)
    write_samples(folder, target, drawn)
    spent = energy.counts["sampling"]
    line = (
        f"{folder}: {n} samples in samples.npz; {spent.energy:,} energies, {spent.gradient:,}"
        " gradients"
    )
    return Outcome(folder, drawn, [line])


@works_in("run")
def evaluate(run: str | Path, *, trust: bool = False) -> Outcome:
    """Judge the learner's paths against reference samples; writes ``summary.json`` and
    ``report.html``."""
    config, folder = load_run(run, trust=trust), writable_folder(run)
    sampler, target, past = restore(config, folder)
    return judge_run(config, folder, sampler, target, past)


report = evaluate  # the page is made from the evaluation, which costs little beside the training

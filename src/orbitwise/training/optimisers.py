"""The optimiser that a configuration names, as one or more of torch's."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, AdamW, Muon, Optimizer

from orbitwise.training.config import TrainConfig

MOMENTUM = 0.9  # of SGD


def optimisers(model: nn.Module, config: TrainConfig) -> list[Optimizer]:
    """Over all parameters of ``model`` that are trained; matrices decay, biases and scales do not.

    ``muon``: the weights of linear layers step along the orthogonalised momentum, at the size of a
    step of AdamW (Liu 2502.16982, eq. 4), so that learning rates of AdamW hold; AdamW has the other
    parameters, embeddings too.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    found: list[Optimizer] = []
    if config.optimiser == "muon":
        linear = {m.weight for m in model.modules() if isinstance(m, nn.Linear)}
        matrices = [p for p in trained if p in linear]
        trained = [p for p in trained if p not in linear]
        if matrices:
            found.append(
                Muon(
                    matrices,
                    lr=config.learning_rate,
                    weight_decay=config.weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if groups and config.optimiser == "sgd":
        found.append(SGD(groups, lr=config.learning_rate, momentum=MOMENTUM))
    elif groups:
        found.append(AdamW(groups, lr=config.learning_rate))
    return found

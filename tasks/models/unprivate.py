"""Which layers of a network let one patient's images influence another's gradient: Opacus' own judgement, by layer.

Tested in ``tests/tasks/models/test_installed.py``.
"""

from __future__ import annotations

from torch import nn


def unprivate_layers(module: nn.Module) -> list[str]:
    """Every reason why a module cannot be trained privately, with the layers that it holds for and what Opacus
    recommends instead; empty if there is none.

    >>> [told] = unprivate_layers(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    >>> told[:52]
    '1: BatchNorm cannot support training with differenti'
    """
    from opacus.utils.module_utils import trainable_modules  # takes seconds to import, and few studies ask
    from opacus.validators import ModuleValidator

    layers: dict[str, list[str]] = {}
    for name, layer in trainable_modules(module):
        validator = ModuleValidator.VALIDATORS.get(type(layer))
        for reason in validator(layer) if validator is not None else ():
            layers.setdefault(str(reason), []).append(name or type(layer).__name__)
    return [f"{', '.join(names)}: {reason}" for reason, names in layers.items()]

"""SCAFFOLD, the server's half: hospitals are told how they drift apart (Karimireddy et al., ICML 2020, algorithm 1).

A hospital with control variate c_i takes K steps ``y <- y - eta_l (g_i(y) - c_i + c)`` and then sets, by option II,

    c_i' = c_i - c + (x - y) / (K eta_l)        so        c_i' - c_i = -c - update_i / (K eta_l)

The change of c_i follows from c, which the server has sent, and from the update, which it gets anyway. So nothing
travels up beside the update, and the server's two means become

    x <- x + eta_g mean(update_i)
    c <- c + |S|/N mean(c_i' - c_i) = (1 - |S|/N) c - |S|/N mean(update_i) / (K eta_l)

which is the paper's server to the letter (a test plays the paper's own messages beside it). With weights p_i both means
are weighted, and c remains the weighted mean of the c_i when all hospitals take part. With momentum mu at the hospital,
K stands for the sum of the responses in ``local_sgd.py``. Flower has no SCAFFOLD.

Privacy: free. c and every c_i are computed from updates that have already been released with noise; what a hospital
keeps as c_i is post-processing of its own releases, not a second look at its patients. But the corrections carry the
noise of the last round into this one.
Memory: FedAvg's and one model more. An order is twice as long.
"""

from __future__ import annotations

import numpy as np

from server.strategy.strategy import LARGEST, moved
from tasks.protocol.wire import CONTROL, Arrays


def scaffold_start(weights: Arrays) -> Arrays:
    """c is 0: the first round is FedAvg's."""
    return {CONTROL + name: np.zeros_like(value) for name, value in weights.items()}


def scaffold_step(
    weights: Arrays,
    memory: Arrays,
    update: Arrays,
    share: float,
    *,
    server_learning_rate: float,
    local_move: float,
) -> tuple[Arrays, Arrays]:
    """The next model and the next c, in the model's dtypes.

    Args:
        local_move: K eta_l: how far one unit of gradient moves a hospital's model in a round.
    """
    control = {
        CONTROL + name: np.clip((1 - share) * memory[CONTROL + name] - (share / local_move) * value, -LARGEST, LARGEST)
        for name, value in update.items()
    }
    return moved(weights, update.__getitem__, server_learning_rate), control


def scaffold_control(memory: Arrays) -> Arrays:
    """c travels with the model."""
    return memory

"""What a strategy asks of hospitals beside plain steps: its part in the study document.

What each does there, and to the guarantee, is explained at the head of ``client/training/methods.py``. The server's
half of FedProx, FedBN, FedPer, FedRep, Ditto and MR-MTL is FedAvg's; that of SCAFFOLD is ``scaffold.py``.
"""

from __future__ import annotations

from conf.schema.strategy import Ditto, FedBN, FedPer, FedProx, FedRep, MeanRegularised, Scaffold, StrategySettings
from tasks.protocol.study import MethodTerms


def method_of(settings: StrategySettings) -> MethodTerms:
    """The hospitals' part of a strategy; most have none."""
    match settings:
        case FedProx():
            return MethodTerms(proximal=settings.mu)
        case Scaffold():
            return MethodTerms(control_variates=True)
        case FedBN():
            return MethodTerms(stays="normalisation")
        case FedPer():
            return MethodTerms(stays="head")
        case FedRep():
            return MethodTerms(stays="head", head_steps=settings.head_steps)
        case Ditto():
            return MethodTerms(personal=settings.pull)
        case MeanRegularised():
            return MethodTerms(towards_mean=settings.pull)
    return MethodTerms()

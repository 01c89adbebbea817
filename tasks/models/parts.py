"""Which parameters of a network stay at a hospital and which are shared: both sides must agree, by name."""

from __future__ import annotations

from torch import nn

from tasks.protocol.study import Stays

_NORMALISATION = (nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


class NothingToShare(ValueError):
    """The part that should stay at the hospitals is empty, or is the whole network."""


def staying(trainable: nn.Module, stays: Stays) -> frozenset[str]:
    """Names of the trained parameters that stay where they are trained.

    ``normalisation`` is scale and shift of every normalisation layer (FedBN), ``head`` the last layer that has
    parameters, or the layers that a network with several heads names (FedPer, FedRep). What stays starts everywhere as
    ``tasks.models.registry.build`` draws it by default.

    Raises:
        NothingToShare: the network has no such part, or no other.
    """
    if stays == "nothing":
        return frozenset()
    trained = {name for name, p in trainable.named_parameters() if p.requires_grad}
    stay = frozenset(_normalisation(trainable) if stays == "normalisation" else _head(trainable)) & trained
    if not stay:
        raise NothingToShare(f"{stays} should stay at the hospitals, but the network has none; choose another strategy")
    if stay == trained:
        raise NothingToShare(
            f"{stays} should stay at the hospitals, but the network has nothing else; choose a deeper one"
        )
    return stay


def _normalisation(trainable: nn.Module) -> set[str]:
    return {
        f"{layer}.{name}"
        for layer, module in trainable.named_modules()
        if isinstance(module, _NORMALISATION)
        for name, _ in module.named_parameters(recurse=False)
    }


def _head(trainable: nn.Module) -> set[str]:
    if heads := getattr(trainable, "heads", ()):
        return {name for name, _ in trainable.named_parameters() if any(f"{name}.".startswith(f"{h}.") for h in heads)}
    layers = [
        (layer, [name for name, _ in m.named_parameters(recurse=False)]) for layer, m in trainable.named_modules()
    ]
    layer, names = next(((layer, names) for layer, names in reversed(layers) if names), ("", []))
    return {f"{layer}.{name}" if layer else name for name in names}

"""Which network: its options, one class for each network.

Tested in ``tests/conf/test_load.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from conf.schema.constraints import MISSING, Count, CountOrNone, SettingsGroup, matches, one_of


@dataclass
class ModelSettings(SettingsGroup):
    """Which network."""

    name: str = MISSING
    """A name that ``tasks/models/registry.py`` knows; the file of the choice sets it."""


@dataclass
class ScatterLinear(ModelSettings):
    """A linear head on fixed wavelet-scattering features: the model for small private cohorts."""

    name: str = "scatter_linear"
    """Set by the choice."""
    resolution: CountOrNone = 64
    """Images are averaged down to this many rows and columns (and slices) first; 0 leaves them as the task gives
    them."""
    J: Count = 4
    """Scale of the scattering: averages over 2**J pixels along each axis."""
    L: Count = 4
    """Number of wavelet orientations; in volumes 3 (axes), 7 (and space diagonals) or 13 (and face diagonals)."""
    pool: Count = 4
    """Each scattering map is averaged to so many cells along each axis."""


@dataclass
class ScatterOutline(ScatterLinear):
    """``scatter_linear``, and a second linear head that outlines structures from fixed features of places."""

    name: str = "scatter_outline"
    """Set by the choice."""
    weights: str = ""
    """File of an outliner that has learned from phantoms, for one structure on images of one channel: training begins
    with its outlines. ``shipped:breast_ultrasound_outlines`` comes with the package; of any other file orders carry the
    SHA-256 only, as for ``Encoder``. "" begins with nothing."""


@dataclass
class Encoder(ModelSettings):
    """A linear head on the features of a public encoder, which stays as it is, and on scattering beside them."""

    name: str = "encoder"
    """Set by the choice."""
    weights: str = ""
    """File of the encoder: safetensors in a layout that `consilium encoder FILE` knows, ONNX, what that command has
    made of either, or ``shipped:NAME`` for one that everybody has, of ``tasks/models/shipped/``. Orders carry its
    SHA-256 only, so every hospital must have any other file too, in the folder that its ``site.yaml`` names as
    ``weights``, and so must a server that conducts the study, in its own ``weights/``."""
    directions: CountOrNone = 0
    """How many of the file's directions are used, the widest first; 0: all that the encoder says, which is for many
    patients or none of the noise."""
    resolution: CountOrNone = 32
    """For the scattering beside it, as the three that follow: see ``ScatterLinear``."""
    J: Count = 3
    """Scale of the scattering."""
    L: Count = 4
    """Number of its wavelet orientations."""
    pool: CountOrNone = 4
    """Its cells along each axis; 0: no scattering, the encoder alone."""


@dataclass
class Deep(ModelSettings):
    """What all networks of layers have."""

    weights: str = ""
    """Safetensors file that the network starts from; "" for none. Orders carry its SHA-256 only, so every hospital must
    have the same file, in the folder that its ``site.yaml`` names as ``weights``, and so must a server that conducts
    the study, in its own ``weights/``. The last layer is always new."""
    freeze: Annotated[str, one_of("nothing", "encoder")] = "nothing"
    """``nothing`` trains all of it; ``encoder`` trains the last layer alone: the rest is computed once for each image,
    kept, and never travels. Needs ``weights``; for networks that classify."""


@dataclass
class DenseNet(Deep):
    """MONAI's DenseNet121 with group normalisation. Images below 32 pixels along an axis get a frame of zeros."""

    name: str = "densenet121"
    """Set by the choice."""
    groups: CountOrNone = 8
    """Number of groups of every normalisation layer; batch normalisation mixes patients and is never trained. 0 keeps
    it, for a frozen encoder whose file has its statistics."""


@dataclass
class ResNet(Deep):
    """MONAI's ResNet18 with group normalisation."""

    name: str = "resnet18"
    """Set by the choice."""
    groups: CountOrNone = 8
    """Number of groups of every normalisation layer; 0 keeps batch normalisation, for a frozen encoder whose file has
    its statistics."""


@dataclass
class EfficientNet(Deep):
    """MONAI's EfficientNet-B0 with group normalisation and nothing random. Images below 32 pixels along an axis get a
    frame of zeros."""

    name: str = "efficientnet"
    """Set by the choice."""
    groups: CountOrNone = 8
    """Number of groups of every normalisation layer; 0 keeps batch normalisation, for a frozen encoder whose file has
    its statistics."""


@dataclass
class ViT(Deep):
    """MONAI's vision transformer, small: it needs more patients than the others."""

    name: str = "vit"
    """Set by the choice."""
    patch: Count = 16
    """Pixels along each side of a patch; images are framed with zeros to a multiple of it."""
    width: Count = 192
    """Values that describe a patch; a multiple of ``heads``."""
    layers: Count = 6
    """Number of transformer blocks."""
    heads: Count = 3
    """Attention heads of each."""


@dataclass
class UNet(Deep):
    """MONAI's residual U-Net with group normalisation: outlines structures, and reads the findings from its deepest
    features."""

    name: str = "unet"
    """Set by the choice."""
    width: Count = 16
    """Channels at full resolution; each level below has twice as many. A multiple of ``groups``."""
    levels: Count = 4
    """Resolutions, 3 to 6; images are framed with zeros so that they can be halved so often."""
    groups: Count = 8
    """Number of groups of every normalisation layer."""


@dataclass
class SegResNet(Deep):
    """MONAI's SegResNet, of four levels: outlines structures, and reads the findings from its deepest features."""

    name: str = "segresnet"
    """Set by the choice."""
    width: Count = 8
    """Channels at full resolution; each level below has twice as many. A multiple of ``groups``."""
    groups: Count = 8
    """Number of groups of every normalisation layer."""


@dataclass
class DynUNet(Deep):
    """MONAI's DynUNet, the network of nnU-Net: outlines structures, and reads the findings from its deepest
    features."""

    name: str = "dynunet"
    """Set by the choice."""
    width: Count = 16
    """Channels at full resolution; each level below has twice as many. A multiple of ``groups``."""
    levels: Count = 4
    """Resolutions, 3 to 6; images are framed with zeros so that they can be halved so often."""
    groups: Count = 8
    """Number of groups of every normalisation layer."""


_DOTTED = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"


@dataclass(kw_only=True)
class Custom(Deep):
    """A network of another package, which everybody who builds it must have installed: ``conf/model/README.md``."""

    name: str = "custom"
    """Set by the choice."""
    entry: Annotated[
        str, matches(rf"(?=.{{3,120}}$){_DOTTED}:{_DOTTED}", "must be MODULE:BUILDER, such as my_package.net:build")
    ]
    """What the package declares in the group ``consilium.models`` of its entry points, such as
    ``my_package.net:build``. It is looked up among what is installed and never imported as a path."""
    version: Annotated[
        str, matches(r"[A-Za-z0-9._-]{1,60} [A-Za-z0-9.!+_-]{1,60}|", "must be PACKAGE VERSION, such as 'my-net 1.0'")
    ] = ""
    """The package that hospitals must have, with its version, such as ``my-net 1.0``; "" for the one that is installed
    where the study's document is written."""


def is_foreign(model: Mapping[str, Any]) -> bool:
    """Whether a network, by its name and options, is another package's."""
    return model.get("name") == Custom.name


def permission_of(model: Mapping[str, Any]) -> str:
    """What a hospital's ``policy.models`` must name for a network: its name, or the entry of another package's."""
    return str(model.get("entry") if is_foreign(model) else model.get("name"))


def weights_named(model: ModelSettings) -> str:
    """The file of weights that a network starts from or keeps; "" for none."""
    return model.weights if isinstance(model, Deep | Encoder | ScatterOutline) else ""


def keeps_its_file(model: ModelSettings) -> bool:
    """Whether what is in the file of weights stays as it is, and is needed wherever the model runs."""
    if isinstance(model, ScatterOutline):
        return bool(model.weights)
    return isinstance(model, Encoder) or (isinstance(model, Deep) and model.freeze == "encoder")

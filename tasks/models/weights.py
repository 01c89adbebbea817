"""Pretrained weights that a network starts from, or keeps: a safetensors file that every participant has.

An order carries the file's SHA-256 and nothing else; a hospital looks for it among the files of a folder of its own and
downloads nothing. Names and shapes are those of the network's own parameters and buffers, as MONAI or Consilium calls
them. The last layer is always new: the file's values for it are ignored.

A frozen encoder becomes the network's fixed part, and only the last layer is trained. Its output for an image is
centred by its mean on public noise, divided by its spread there, and scaled to norm 1; ``tasks/models/scatter.py``
explains why.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from tasks.input_spec import InputSpec
from tasks.models.encoders import encoder_file
from tasks.models.network import Network
from tasks.models.parts import staying
from tasks.models.scatter import natural_noise

Finder = Callable[[str], Path | bytes | None]
"""From a SHA-256 in hexadecimal digits to the file with that digest, or to its content, or ``None``."""

FREEZES = ("nothing", "encoder")
SUFFIXES = encoder_file.SUFFIXES
SHIPPED = Path(__file__).parent / "shipped"
"""Files that come with this package."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_COUNTER = "num_batches_tracked"


class NoWeights(ValueError):
    """The file of an encoder's weights is missing."""


def digest_of(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits; read once for each size and modification time.

    Raises:
        OSError: it cannot be read.
    """
    state = path.stat()
    return _digest(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shipped(name: str) -> Path | None:
    """The file that ``shipped:NAME`` means: it comes with this package, so everybody has it."""
    kind, _, bare = name.partition(":")
    return next((path for path in files_in(SHIPPED) if path.stem == bare), None) if kind == "shipped" else None


def files_in(folder: Path) -> list[Path]:
    """The files of weights of a folder, which need not exist."""
    return sorted(path for suffix in SUFFIXES for path in folder.glob(f"*{suffix}"))


def in_folder(folder: Path) -> Finder:
    """Looks among the files of weights of a folder, and those that come with this package."""

    def find(digest: str) -> Path | None:
        return next((path for path in (*files_in(SHIPPED), *files_in(folder)) if digest_of(path) == digest), None)

    return find


def carried(content: bytes) -> Finder:
    """Knows one file, whose content is given."""

    def find(digest: str) -> bytes | None:
        return content if hashlib.sha256(content).hexdigest() == digest else None

    return find


def equipped(network: Network, form: InputSpec, digest: str, freeze: str, find: Finder | None) -> Network:
    """The network with weights from a file.

    Args:
        digest: SHA-256 of the file.
        freeze: one of ``FREEZES``.
        find: where the file is; ``None`` where the caller brings values of all that is trained, so that a network of
            which nothing is frozen needs no file.

    Raises:
        ValueError: the file does not fit, with every reason; or such a network has no encoder to freeze.
        NoWeights: the file is not there.
    """
    if freeze not in FREEZES:
        raise ValueError(f"freeze={freeze!r}: use one of {', '.join(FREEZES)}")
    if freeze == "nothing" and find is None and _DIGEST.fullmatch(digest):
        return network
    _load(network.trainable, file_of(digest, find))
    return network if freeze == "nothing" else _frozen(network, form)


def file_of(digest: str, find: Finder | None) -> Path | bytes:
    """The file with that digest, or its content.

    Raises:
        ValueError: it is no digest.
        NoWeights: the file is not there.
    """
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"weights={digest!r} is not a SHA-256 of a file")
    file = None if find is None else find(digest)
    if file is None:
        raise NoWeights(
            f"it needs the file of weights with SHA-256 {digest}, which is missing: put it into the folder that "
            "site.yaml names as `weights`"
        )
    return file


@torch.no_grad()
def _load(trainable: nn.Module, file: Path | bytes) -> None:
    """Set all layers but the last to the file's values."""
    name_of_file = file.name if isinstance(file, Path) else "the model's file"
    try:
        tensors = load_file(file) if isinstance(file, Path) else load(file)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot read the weights in {name_of_file}: {error}") from error
    head = staying(trainable, "head")
    expected = {name: tensor for name, tensor in trainable.state_dict().items() if not name.endswith(_COUNTER)}
    # Some networks are inside another module, whose name is not in the file of the bare network.
    given = {name if name in expected else f"backbone.{name}": tensor for name, tensor in tensors.items()}
    wanted = expected.keys() - head
    given = {name: tensor for name, tensor in given.items() if name not in head and not name.endswith(_COUNTER)}
    problems = [f"{name} is missing" for name in wanted - given.keys()]
    problems += [f"{name.removeprefix('backbone.')} is unknown" for name in given.keys() - wanted]
    for name in wanted & given.keys():
        there, here = given[name], expected[name]
        if there.shape != here.shape or not there.is_floating_point():
            problems.append(f"{name} is {there.dtype} {tuple(there.shape)}, not {tuple(here.shape)}")
        elif not bool(torch.isfinite(there).all()):
            problems.append(f"{name} has values that are not finite")
    if problems:
        raise ValueError(f"the weights in {name_of_file} do not fit: {_few(sorted(problems))}")
    for name in wanted:
        expected[name].copy_(given[name])


def _few(problems: list[str]) -> str:
    shown = "; ".join(problems[:20])
    return shown if len(problems) <= 20 else f"{shown}; and {len(problems) - 20} more"


def _frozen(network: Network, form: InputSpec) -> Network:
    head = {name.rpartition(".")[0] for name in staying(network.trainable, "head")}
    layer = network.trainable.get_submodule(min(head))
    if network.outlines or len(head) != 1 or not isinstance(layer, nn.Linear):
        raise ValueError("freeze=encoder is for densenet121, resnet18, efficientnet and vit, which have one last layer")
    parent, _, name = min(head).rpartition(".")
    setattr(network.trainable.get_submodule(parent), name, nn.Identity())
    last = nn.Linear(layer.in_features, form.outputs)
    nn.init.zeros_(last.weight)  # a convex problem, as that of ``scatter_linear``
    nn.init.zeros_(last.bias)
    return Network(FrozenEncoder(network.features, network.trainable, form), last)


class FrozenEncoder(nn.Module):
    """A network without its last layer, which never trains; maps images to vectors of norm 1."""

    def __init__(self, frame: nn.Module | None, encoder: nn.Module, form: InputSpec) -> None:
        super().__init__()
        self._frame, self._encoder = frame or nn.Identity(), encoder.requires_grad_(False)
        self._form = form
        self._public: tuple[Tensor, Tensor] | None = None
        self.train(False)

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stays in evaluation mode: its normalisation must not learn from images, and it must not drop anything."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features of norm 1, float32 (images, features)."""
        if self._public is None:  # computed for the first image, as for scattering
            noise = natural_noise(self._form.shape[1:]).to(images.device)
            self._public = _mean_and_spread(self._encoded(noise.expand(-1, *self._form.shape)))
        mean, spread = (each.to(images.device) for each in self._public)
        return normalize((self._encoded(images) - mean) / spread)

    def _encoded(self, images: Tensor) -> Tensor:
        encoded: Tensor = self._encoder(self._frame(images))
        return encoded


def _mean_and_spread(vectors: Tensor) -> tuple[Tensor, Tensor]:
    spread = vectors.std(dim=0)
    return vectors.mean(dim=0), spread + 1e-3 * spread.max() + torch.finfo().tiny

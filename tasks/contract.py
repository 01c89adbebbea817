"""The acquisition contract of a task: the requirements that an image must meet before a model may learn from it.

Each task's folder has a ``contract.yaml``: organ and modalities, rules that are checked one by one in their order, and
the fractions that a hospital must reach to take part. Hospitals check it (``client/reading/contract.py``); the server
repeats its digest in the study document, so that all of them check the same.

A rule holds, is violated, or cannot be decided because an attribute is absent; real files lack many attributes that are
rarely used. Each rule states the consequence itself: ``on_violation`` and ``on_missing``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

_ARCHIVES = "medmnist"
"""The folder whose contract is that of each task without a folder of its own."""

Fraction = Annotated[float, Field(gt=0, le=1)]
Keyword = Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]+(\[\d\])?$")]
"""A DICOM keyword, such as ``Rows``; ``ImageType[0]`` is the first of several values."""
Words = Annotated[list[str], Field(min_length=1)]


class BadContract(ValueError):
    """A contract file is wrong; the message lists every problem with its line."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Rule(_Strict):
    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    on_violation: Literal["reject", "warn"] = "reject"
    on_missing: Literal["reject", "warn", "pass"]
    """What follows when the attribute is absent. Stated in every rule, so that nobody has to guess it."""
    remedy: str = Field(min_length=10)
    """One sentence for the person at the scanner or the archive."""


class OneOf(_Rule):
    """The attribute has one of these values; case does not matter."""

    check: Literal["one_of"]
    attribute: Keyword
    values: Words


class NoneOf(_Rule):
    """The attribute has none of these values."""

    check: Literal["none_of"]
    attribute: Keyword
    values: Words


class Range(_Rule):
    """The attribute is a number within these bounds, bounds included."""

    check: Literal["range"]
    attribute: Keyword
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: no value can satisfy both")
        return self


class Present(_Rule):
    """At least one of these attributes has a value. ``on_missing`` says what follows if none has."""

    check: Literal["present"]
    attributes: Annotated[list[Keyword], Field(min_length=1)]


class Matrix(_Rule):
    """Rows and Columns have these minima."""

    check: Literal["matrix"]
    min_rows: int = Field(ge=1)
    min_columns: int = Field(ge=1)


class Modality(_Rule):
    """Modality (0008,0060) is one of the contract's."""

    check: Literal["modality"]


class SopClass(_Rule):
    """SOPClassUID is one of these UIDs."""

    check: Literal["sop_class"]
    uids: Annotated[list[Annotated[str, Field(pattern=r"^[0-9.]+$")]], Field(min_length=1)]


class NotSecondaryCapture(_Rule):
    """No Secondary Capture class, and no ConversionType that says so (PS3.3 C.8.6.1): no screenshot, no print."""

    check: Literal["not_secondary_capture"]


class NotPhotographed(_Rule):
    """Neither digitised film nor a photograph, by ConversionType, Modality and manufacturer of the device."""

    check: Literal["not_photographed"]


class LossyHistory(_Rule):
    """No lossy compression in the past, by LossyImageCompression (0028,2110) and its ratio (PS3.3 C.7.6.1.1.5)."""

    check: Literal["lossy_history"]
    max_ratio: float = Field(default=1.0, ge=1)
    """Lossy images up to this declared ratio are accepted; with 1, none are."""


class LosslessSyntax(_Rule):
    """The transfer syntax guarantees the measured values (PS3.5 section 8.2)."""

    check: Literal["lossless_syntax"]


class NoJpegGrid(_Rule):
    """The pixels show no trace of JPEG, no 8x8 blocks with quantised coefficients: ``client/reading/evidence.py``."""

    check: Literal["no_jpeg_grid"]
    below: Fraction
    """The trace must be weaker than this."""


class DepthUsed(_Rule):
    """An image of more than 8 bits stored has more grey values than 8 bits can express."""

    check: Literal["depth_used"]
    min_levels: int = Field(ge=2)


class Calibrated(_Rule):
    """The size of a pixel is known: PixelSpacing, ImagerPixelSpacing, or a calibrated ultrasound region."""

    check: Literal["calibrated"]


class HounsfieldUnits(_Rule):
    """The values are Hounsfield units by the file's Modality LUT. ``on_missing`` says what follows where RescaleSlope
    or RescaleIntercept is absent, though a CT image must have them (PS3.3 C.8.2.1)."""

    check: Literal["hounsfield"]


class NotBurnedIn(_Rule):
    """BurnedInAnnotation (0028,0301) does not say YES: such pixels name the patient (PS3.3 C.7.6.1.1.5). A hospital
    that accepts them for a source (``burned_in_annotation: accept``) is only warned."""

    check: Literal["not_burned_in"]


class NoText(_Rule):
    """The pixels that are left show no line of text: ``client/reading/lettering.py``."""

    check: Literal["no_text"]
    fewer_than: int = Field(ge=3)
    """A line of text has at least so many glyphs in a row."""


class Regions(_Rule):
    """SequenceOfUltrasoundRegions has a B-mode region, so that burned-in text around it can be removed."""

    check: Literal["regions"]


class Organ(_Rule):
    """The contract's organ, by BodyPartExamined or AnatomicRegionSequence, in words or codes, or as the hospital has
    declared for the whole source."""

    check: Literal["organ"]
    words: Words
    codes: list[str] = Field(default_factory=list)
    """Such as ``SCT:76752008``."""


class Laterality(_Rule):
    """ImageLaterality or Laterality is one of these."""

    check: Literal["laterality"]
    values: Annotated[list[Literal["L", "R", "B", "U"]], Field(min_length=1)]


class ViewPosition(_Rule):
    """ViewPosition, or the meaning of ViewCodeSequence, is one of these."""

    check: Literal["view"]
    values: Words


ContractRule = Annotated[
    OneOf
    | NoneOf
    | Range
    | Present
    | Matrix
    | Modality
    | SopClass
    | NotSecondaryCapture
    | NotPhotographed
    | LossyHistory
    | LosslessSyntax
    | NoJpegGrid
    | DepthUsed
    | Calibrated
    | HounsfieldUnits
    | NotBurnedIn
    | NoText
    | Regions
    | Organ
    | Laterality
    | ViewPosition,
    Field(discriminator="check"),
]


class Join(_Strict):
    """What a hospital must reach to take part."""

    conforming: Fraction
    """Fraction of labelled images that no rule rejects."""
    labelled: Fraction
    """Fraction of images in scope that have a label; a hospital that labels only easy cases would bias the model."""


class Contract(_Strict):
    """One task's contract.

    >>> contract = of_task("breast_ultrasound")
    >>> contract.organ, contract.modalities
    ('breast', ['US'])
    >>> [rule.check for rule in contract.rules[:3]]
    ['modality', 'not_secondary_capture', 'not_photographed']
    """

    task: str
    version: int = Field(ge=1)
    organ: str = Field(min_length=1)
    """Organ system, in one lower-case word."""
    modalities: Annotated[list[Annotated[str, Field(pattern=r"^[A-Z]{2,}$")]], Field(min_length=1)]
    derived: Literal["simulated_only", "refuse"]
    """Research images (PNG, JPEG, NIfTI) have no header in which the acquisition could be checked. ``simulated_only``
    takes them at a simulated hospital and counts them as derived; a real hospital never trains on them."""
    join: Join
    rules: list[ContractRule] = Field(min_length=1)

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        ids = [rule.id for rule in self.rules]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"rules with the same id: {', '.join(twice)}")
        return self


def digest(contract: Contract) -> str:
    """SHA-256 over the contract's content, as hexadecimal digits; comments and spacing do not count."""
    text = json.dumps(contract.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def of_task(name: str) -> Contract:
    """The contract of a task of this release.

    Args:
        name: one of ``tasks.task.names()``; the caller has looked it up, since it becomes part of a path.

    Raises:
        BadContract: see ``read``; also when it is another task's.
    """
    here = Path(__file__).parent
    folder = name if (here / name).is_dir() else _ARCHIVES
    path = here / folder / "contract.yaml"
    contract = read(path)
    if contract.task != folder:
        raise BadContract(f"{path}: it is the contract of {contract.task!r}")
    return contract.model_copy(update={"task": name})


def _refuses_without_region(rule: ContractRule) -> bool:
    return rule.check == "regions" and rule.on_violation == rule.on_missing == "reject"


@cache
def digest_of_task(name: str) -> str:
    """The digest of ``of_task(name)``."""
    return digest(of_task(name))


def read(path: Path) -> Contract:
    """The contract in a file.

    Raises:
        BadContract: the file cannot be read or is not a contract; every problem with its line.
    """
    try:
        text = path.read_text("utf-8")
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadContract(f"cannot read {path}: {error}") from error
    try:
        contract = Contract.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"  {_placed(tree, problem)}" for problem in error.errors(include_url=False))
        raise BadContract(f"{path} has {error.error_count()} problem(s):\n{problems}") from None
    if "US" in contract.modalities and not any(map(_refuses_without_region, contract.rules)):
        raise BadContract(
            f"{path}: images of ultrasound need a rule of check: regions that rejects on violation and if missing: "
            "outside of regions scanners write the patient's name, and it is blacked out by them"
        )
    return contract


def _placed(tree: yaml.Node | None, problem: Any) -> str:
    """A problem with the line of the part of the file that it concerns."""
    node, known = tree, []
    for step in problem["loc"]:
        inner = _inside(node, step)
        if inner is not None:
            node = inner
            known.append(str(step))
        elif step == problem["loc"][-1]:  # pydantic also names the kind of rule, which is no part of the file
            known.append(str(step))
    line = node.start_mark.line + 1 if node is not None else 1
    return f"line {line}: {'.'.join(known) or 'file'}: {problem['msg']}"


def _inside(node: yaml.Node | None, step: str | int) -> yaml.Node | None:
    return next((value for key, value in _children(node) if key == step), None)


def _children(node: yaml.Node | None) -> Iterator[tuple[str | int, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((str(key.value), value) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        yield from enumerate(node.value)

"""Whether an image meets its task's contract. Rules are checked in the contract's order, header first, pixels later.

``judge_header`` takes less than a millisecond and decodes nothing. ``judge_pixels`` adds the evidence from
``client/reading/evidence.py`` once the frame is decoded anyway; evidence is kept in the catalog, so a contract whose
limits change needs no second decoding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag
from pydicom.uid import HTJ2K, JPEG2000

from client.pixels import calibration
from client.pixels.codestream import LOSSLESS
from client.pixels.groups import frame_value, is_enhanced, moves
from client.pixels.header import NATIVE, transfer_syntax
from client.pixels.modality import Hounsfield, hounsfield
from client.pixels.pixel_format import integer
from client.reading.evidence import PixelEvidence
from tasks import contract as contracts
from tasks.contract import Contract

_SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
_SECONDARY_CONVERSIONS = {"WSD", "SYN"}  # workstation, synthetic image (PS3.3 C.8.6.1)
_CAMERA_CONVERSIONS = {"DV", "DI", "DF", "SD", "SI", "DRW"}  # video, interface, film, scans, drawing
_CAMERA_MODALITIES = {"XC", "GM", "DMS", "HD", "DOC"}
_CAMERA_MAKERS = re.compile(r"\b(iphone|ipad|apple|sm-[a-z]\d+|redmi|xiaomi|huawei|oneplus|gopro)\b", re.I)
_MAY_BE_LOSSLESS = {str(JPEG2000), str(HTJ2K)}
_KEEP_VALUES = {*map(str, NATIVE), *map(str, LOSSLESS), "1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.8.1"}
_MAKERS = ("Manufacturer", "ManufacturerModelName", "SecondaryCaptureDeviceManufacturer")
_TEXTS = frozenset(("CS", "DS", "IS", "LO", "SH", "UI"))
_UNSIGNED = {"US": 2, "UL": 4}

_Predicate = Callable[["_Image", Any], "CheckState"]


class CheckState(StrEnum):
    """Whether a rule holds."""

    HOLDS = "HOLDS"
    VIOLATED = "VIOLATED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Declared:
    """What the hospital declares in ``site.yaml`` for all images of a source, used if files do not say.

    Attributes:
        organ: the organ that all of them show.
        organ_words: the hospital's own words for BodyPartExamined, and the organ they mean.
        series_words: by the name of a task's sequence the hospital's own words in SeriesDescription.
        burned_in_accepted: images with BurnedInAnnotation YES are taken; the rule then only warns.
    """

    organ: str = ""
    organ_words: Mapping[str, str] = field(default_factory=dict)
    burned_in_accepted: bool = False
    series_words: Mapping[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """A contract's judgement of one image: ids of rules, in the contract's order.

    Attributes:
        rejected: rules for which the image cannot be used; the first names the reason that is counted.
        warned: rules that were broken or undecided without that consequence.
    """

    rejected: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()

    @property
    def conforms(self) -> bool:
        return not self.rejected


NOTHING_DECLARED = Declared()


def judge_header(
    contract: Contract, header: Dataset, declared: Declared = NOTHING_DECLARED, frame: int = 0
) -> Judgement:
    """Check all rules that need no pixels, of one frame.

    A value that cannot be read, whatever the reason, counts as missing: the rule says what follows.
    """
    image = _Image(contract, header, declared, frame)
    rules = [(rule, _HEADER[rule.check]) for rule in contract.rules if rule.check in _HEADER]
    judged = _judged(contract, {rule.id: _tried(predicate, image, rule) for rule, predicate in rules})
    return _excused(contract, judged) if declared.burned_in_accepted else judged


def judge_frames(contract: Contract, header: Dataset, declared: Declared, frames: int) -> tuple[Judgement, ...]:
    """``judge_header`` of each frame of an enhanced image; of others all frames are as the first."""
    return tuple(judge_header(contract, header, declared, frame) for frame in range(frames))


def _excused(contract: Contract, judged: Judgement) -> Judgement:
    excused = {rule.id for rule in contract.rules if rule.check == "not_burned_in"} & set(judged.rejected)
    rejected = tuple(name for name in judged.rejected if name not in excused)
    return merged(contract, Judgement(rejected, judged.warned), Judgement(warned=tuple(excused)))


def judge_pixels(contract: Contract, evidence: PixelEvidence, bits_stored: int | None) -> Judgement:
    """Check the rules about pixels, on the evidence from the decoded frame."""
    states = {}
    for rule in contract.rules:
        if isinstance(rule, contracts.NoJpegGrid):
            states[rule.id] = CheckState.UNKNOWN if evidence.jpeg is None else _state(evidence.jpeg < rule.below)
        elif isinstance(rule, contracts.DepthUsed):
            deep = bits_stored is not None and bits_stored > 8
            states[rule.id] = _state(not deep or evidence.levels >= rule.min_levels)
        elif isinstance(rule, contracts.NoText):
            states[rule.id] = _state(evidence.glyphs < rule.fewer_than)
    return _judged(contract, states)


def merged(contract: Contract, *parts: Judgement) -> Judgement:
    """Several judgements of one image as one, in the contract's order."""
    rejected = {name for part in parts for name in part.rejected}
    warned = {name for part in parts for name in part.warned}
    order = [rule.id for rule in contract.rules]
    return Judgement(tuple(n for n in order if n in rejected), tuple(n for n in order if n in warned))


def bits_stored(header: Dataset) -> int | None:
    """BitsStored, where the header has it."""
    return integer(header, "BitsStored")


def _judged(contract: Contract, states: dict[str, CheckState]) -> Judgement:
    rejected, warned = [], []
    for rule in contract.rules:
        state = states.get(rule.id, CheckState.HOLDS)
        if state is CheckState.HOLDS:
            continue
        action = rule.on_violation if state is CheckState.VIOLATED else rule.on_missing
        if action == "reject":
            rejected.append(rule.id)
        elif action == "warn":
            warned.append(rule.id)
    return Judgement(tuple(rejected), tuple(warned))


class _Image:
    """One frame's header; each value is converted once, since several rules use the same."""

    def __init__(self, contract: Contract, header: Dataset, declared: Declared, frame: int) -> None:
        self.contract, self.header, self.declared, self.frame = contract, header, declared, frame
        self._texts: dict[str, str] = {}

    def text(self, keyword: str) -> str:
        """A value in capitals, without surrounding blanks; ``ImageType[0]`` selects one of several. "" if absent."""
        if keyword not in self._texts:
            name, _, index = keyword.partition("[")
            value = self._value(name)
            if index and value is not None:
                place = int(index[:-1])
                several = [value] if isinstance(value, str) else list(value)
                value = several[place] if place < len(several) else None
            self._texts[keyword] = "" if value is None else str(value).strip().upper()
        return self._texts[keyword]

    def items(self, keyword: str) -> list[Dataset]:
        """The items of a sequence; none when it is absent."""
        return list(self._value(keyword) or ())

    def _value(self, keyword: str) -> Any:
        if moves(keyword) and is_enhanced(self.header):
            return frame_value(self.header, self.frame, keyword)
        return value_of(self.header, keyword)


@cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


def value_of(dataset: Dataset, keyword: str) -> Any:
    """A value of a header; ``None`` when it is absent or empty.

    Plain ASCII texts (as ``str`` or a list of them) and unsigned numbers are taken from the bytes as the file has them,
    in a tenth of the time that pydicom's conversion takes; all else is converted by pydicom.
    """
    tag = _tag(keyword)
    if tag not in dataset:
        return None
    raw = dataset.get_item(tag)
    if not isinstance(raw, RawDataElement) or not isinstance(raw.value, bytes):
        return dataset[tag].value
    if raw.VR in _UNSIGNED and len(raw.value) == _UNSIGNED[raw.VR]:
        return int.from_bytes(raw.value, "little" if raw.is_little_endian else "big")
    if raw.VR not in _TEXTS or not raw.value.isascii():
        return dataset[tag].value
    parts = [part.strip(" \0") for part in raw.value.decode("ascii").split("\\")]
    return (parts[0] or None) if len(parts) == 1 else parts


def _tried(predicate: _Predicate, image: _Image, rule: Any) -> CheckState:
    try:
        return predicate(image, rule)
    except Exception:  # pydicom converts values when they are asked for, and a broken one may raise anything
        return CheckState.UNKNOWN


def _state(holds: bool) -> CheckState:
    return CheckState.HOLDS if holds else CheckState.VIOLATED


def _known(value: str, holds: Callable[[str], bool]) -> CheckState:
    return _state(holds(value)) if value else CheckState.UNKNOWN


def _one_of(image: _Image, rule: Any) -> CheckState:
    wanted = {value.upper() for value in rule.values}
    return _known(image.text(rule.attribute), lambda value: value in wanted)


def _none_of(image: _Image, rule: Any) -> CheckState:
    unwanted = {value.upper() for value in rule.values}
    return _known(image.text(rule.attribute), lambda value: value not in unwanted)


def _range(image: _Image, rule: Any) -> CheckState:
    low = float("-inf") if rule.min is None else rule.min
    high = float("inf") if rule.max is None else rule.max
    return _known(image.text(rule.attribute), lambda value: low <= float(value) <= high)


def _present(image: _Image, rule: Any) -> CheckState:
    return CheckState.HOLDS if any(map(image.text, rule.attributes)) else CheckState.UNKNOWN


def _matrix(image: _Image, rule: Any) -> CheckState:
    rows, columns = value_of(image.header, "Rows"), value_of(image.header, "Columns")
    if not rows or not columns:
        return CheckState.UNKNOWN
    return _state(rows >= rule.min_rows and columns >= rule.min_columns)


def _modality(image: _Image, rule: Any) -> CheckState:
    return _known(image.text("Modality"), lambda value: value in image.contract.modalities)


def _sop_class(image: _Image, rule: Any) -> CheckState:
    return _known(image.text("SOPClassUID"), lambda value: value in rule.uids)


def _not_secondary_capture(image: _Image, rule: Any) -> CheckState:
    uid, conversion = image.text("SOPClassUID"), image.text("ConversionType")
    if uid == _SECONDARY or uid.startswith(f"{_SECONDARY}.") or conversion in _SECONDARY_CONVERSIONS:
        return CheckState.VIOLATED
    return CheckState.HOLDS if uid else CheckState.UNKNOWN


def _not_photographed(image: _Image, rule: Any) -> CheckState:
    if image.text("ConversionType") in _CAMERA_CONVERSIONS or image.text("Modality") in _CAMERA_MODALITIES:
        return CheckState.VIOLATED
    makers = [image.text(name) for name in _MAKERS]
    if any(_CAMERA_MAKERS.search(maker) for maker in makers):
        return CheckState.VIOLATED
    return CheckState.HOLDS if any(makers) else CheckState.UNKNOWN


def _lossy_history(image: _Image, rule: Any) -> CheckState:
    """The flag counts even if the ratio next to it cannot be read."""
    flag, ratios = image.text("LossyImageCompression"), _ratios(image.header)
    if flag == "01" or image.text("LossyImageCompressionMethod") or any(ratio > 1 for ratio in ratios):
        return _state(bool(ratios) and max(ratios) <= rule.max_ratio)
    return CheckState.HOLDS if flag == "00" else CheckState.UNKNOWN


def _ratios(header: Dataset) -> list[float]:
    """Of every compression in the image's history; none when one of them cannot be read."""
    try:
        value = value_of(header, "LossyImageCompressionRatio")
        return [float(one) for one in ([value] if isinstance(value, int | float | str) else value or []) if one != ""]
    except Exception:
        return []


def _lossless_syntax(image: _Image, rule: Any) -> CheckState:
    """JPEG 2000 and HTJ2K may be coded either way; "00" in LossyImageCompression settles it, "01" too."""
    syntax = str(transfer_syntax(image.header))
    if syntax in _KEEP_VALUES:
        return CheckState.HOLDS
    if syntax not in _MAY_BE_LOSSLESS:
        return CheckState.VIOLATED
    flag = image.text("LossyImageCompression")
    return _state(flag == "00") if flag in ("00", "01") else CheckState.UNKNOWN


def _calibrated(image: _Image, rule: Any) -> CheckState:
    return CheckState.UNKNOWN if calibration.spacing_mm(image.header, image.frame) is None else CheckState.HOLDS


def _hounsfield(image: _Image, rule: Any) -> CheckState:
    told = hounsfield(image.header, image.frame)
    return CheckState.UNKNOWN if told is Hounsfield.NOT_TOLD else _state(told is Hounsfield.TOLD)


def _regions(image: _Image, rule: Any) -> CheckState:
    """What the reader keeps; of a frame without such a region all text would stay."""
    if not calibration.tells_regions(image.header):
        return CheckState.UNKNOWN
    rows, columns = value_of(image.header, "Rows") or 0, value_of(image.header, "Columns") or 0
    return _state(bool(calibration.regions(image.header, rows, columns)))


def _not_burned_in(image: _Image, rule: Any) -> CheckState:
    return _known(image.text("BurnedInAnnotation"), lambda value: value != "YES")


def _organ(image: _Image, rule: Any) -> CheckState:
    wanted = {word.upper() for word in (*rule.words, image.contract.organ)}
    meaning = {word.upper(): organ.upper() for word, organ in image.declared.organ_words.items()}
    items = image.items("AnatomicRegionSequence")
    words = {image.text("BodyPartExamined"), *(_code(item)[0] for item in items)} - {""}
    codes = {_code(item)[1] for item in items}
    if codes & set(rule.codes) or any(meaning.get(word, word) in wanted for word in words):
        return CheckState.HOLDS
    if words or codes:
        return CheckState.VIOLATED
    return _known(image.declared.organ, lambda organ: organ.upper() in wanted)


def _code(item: Dataset) -> tuple[str, str]:
    """Meaning in capitals, and scheme and value, of a coded entry (PS3.3 section 8.8)."""
    meaning, scheme, value = (
        str(value_of(item, keyword) or "").strip() for keyword in ("CodeMeaning", "CodingSchemeDesignator", "CodeValue")
    )
    return meaning.upper(), f"{scheme}:{value}"


def _laterality(image: _Image, rule: Any) -> CheckState:
    side = image.text("ImageLaterality") or image.text("Laterality")
    return _known(side, lambda value: value in rule.values)


def _view(image: _Image, rule: Any) -> CheckState:
    told = {image.text("ViewPosition"), *(_code(item)[0] for item in image.items("ViewCodeSequence"))} - {""}
    return _state(bool(told & {value.upper() for value in rule.values})) if told else CheckState.UNKNOWN


_HEADER: dict[str, _Predicate] = {
    "one_of": _one_of,
    "none_of": _none_of,
    "range": _range,
    "present": _present,
    "matrix": _matrix,
    "modality": _modality,
    "sop_class": _sop_class,
    "not_secondary_capture": _not_secondary_capture,
    "not_photographed": _not_photographed,
    "lossy_history": _lossy_history,
    "lossless_syntax": _lossless_syntax,
    "calibrated": _calibrated,
    "hounsfield": _hounsfield,
    "regions": _regions,
    "not_burned_in": _not_burned_in,
    "organ": _organ,
    "laterality": _laterality,
    "view": _view,
}

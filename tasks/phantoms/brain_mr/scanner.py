"""A phantom hospital's MR scanner: field, protocol, and the signal of each tissue.

Tested in ``tests/tasks/phantoms/brain_mr/test_phantom.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.phantoms.brain_mr.head import SHAPE, TISSUES
from tasks.phantoms.fields import Field, smooth_volume
from tasks.phantoms.hospital import random_numbers
from tasks.task import PhantomHospital

_MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
_MOST_STORED = 4095

# Proton density, T1 and T2 in milliseconds at 1.5 T: grey and white matter, fluid and fat after Bojorquez et al. (Magn
# Reson Imaging 35:69, 2017), oedema and tumour as usually reported.
_PROPERTIES: dict[str, tuple[float, float, float]] = {
    "white": (0.70, 680, 75),
    "grey": (0.82, 1050, 95),
    "csf": (1.00, 4200, 1800),
    "scalp": (0.85, 330, 75),
    "bone": (0.06, 800, 40),
    "oedema": (0.88, 1350, 150),
    "solid": (0.88, 1400, 160),
    "enhancing": (0.86, 1300, 130),
    "necrosis": (0.95, 2400, 350),
}
_T1_OF_FIELD = {1.5: 1.0, 3.0: 1.25}
_RELAXED_MS = 330
"""T1 of what took up the contrast agent."""


@dataclass(frozen=True)
class Protocol:
    """One sequence as a hospital runs it; times in milliseconds.

    Attributes:
        name: ``Sequence.name`` of the task.
        described: SeriesDescription.
        repetition, echo, inversion: times; an inversion time of 0 means that there is none.
        planes: of the fine grid from slice to slice.
        thick: of the fine grid within a slice.
        sagittal: whether its slices go from right to left instead of from the feet to the head.
    """

    name: str
    described: str
    repetition: float
    echo: float
    inversion: float
    planes: int
    thick: int
    sagittal: bool = False


@dataclass(frozen=True)
class MrScanner:
    """A scanner as one hospital has set it up.

    Attributes:
        field_t: MagneticFieldStrength.
        gain: of the receiver; MR has no unit.
        noise: standard deviation in each channel, as a fraction of the brain's brighter tissue.
        bias: standard deviation of the logarithm of the coils' sensitivity.
        protocols: what is acquired.
        missed: how often a sequence is left out, by its name.
    """

    field_t: float
    gain: float
    noise: float
    bias: float
    protocols: tuple[Protocol, ...]
    missed: dict[str, float]


_NAMES = {
    "T1ce": ("AX T1 POST GAD", "t1_se_tra_KM", "Ax T1 +C", "T1W_3D_TFE GADO"),
    "FLAIR": ("AX T2 FLAIR", "t2_tirm_tra_dark-fluid", "Ax FLAIR", "FLAIR_longTR"),
    "T2": ("AX T2 FSE", "t2_tse_tra", "Ax T2 PROPELLER", "T2W_TSE"),
    "T1": ("AX T1", "t1_se_tra", "Ax T1 FLAIR", "T1W_SE"),
}


def scanner_of(hospital: PhantomHospital) -> MrScanner:
    """The scanner that stands in this hospital; manufacturer and protocol follow from the hospital's name.

    ``gain`` is the receiver's: it multiplies all grey values. ``frequency_mhz`` means nothing here.
    """
    rng = random_numbers("mr scanner", hospital.name)
    vendor = int(rng.integers(4))
    planes = int(rng.integers(2, 4))
    thick = int(rng.integers(2, planes + 1))

    def protocol(name: str, repetition: float, echo: float, nulls: float = 0, sagittal: bool = False) -> Protocol:
        own = np.exp(rng.normal(0, 0.08, 2))
        across, within = (2, 2) if sagittal else (planes, thick)
        inversion = nulls * _nulling_ms(repetition * own[0])
        return Protocol(
            name,
            _NAMES[name][vendor],
            repetition=repetition * own[0],
            echo=echo * own[1],
            inversion=inversion,
            planes=across,
            thick=within,
            sagittal=sagittal,
        )

    protocols = (
        protocol("T1ce", 520, 12, sagittal=bool(rng.random() < 0.2)),
        protocol("FLAIR", 9000, 115, nulls=float(rng.uniform(0.95, 1.05))),
        protocol("T2", 4800, 98),
        protocol("T1", 540, 12),
    )
    missed = {name: float(rng.choice([0.0, 0.05, 0.2])) for name in ("FLAIR", "T2", "T1")}
    if rng.random() < 0.25:
        missed[str(rng.choice(["T2", "T1"]))] = 1.0  # who never runs it
    return MrScanner(
        field_t=float(rng.choice([1.5, 3.0])),
        gain=float(hospital.gain * np.exp(rng.normal(0, 0.3))),
        noise=float(rng.uniform(0.03, 0.07)),
        bias=float(rng.uniform(0.03, 0.12)),
        protocols=protocols,
        missed=missed,
    )


def _nulling_ms(repetition: float) -> float:
    """The inversion time at which fluid has no signal."""
    t1 = _PROPERTIES["csf"][1]
    return float(t1 * np.log(2 / (1 + np.exp(-repetition / t1))))


def signal(scanner: MrScanner, protocol: Protocol, shares: Field) -> Field:
    """Magnitude of the transverse magnetisation of each voxel, float32 (*SHAPE).

    Spin echo: PD (1 - exp(-TR/T1)) exp(-TE/T2); after an inversion PD |1 - 2 exp(-TI/T1) + exp(-TR/T1)| exp(-TE/T2)
    (Haacke et al., Magnetic Resonance Imaging, 2nd ed., chapter 8). The contrast agent shortens T1 where it leaks, and
    in the scalp a little.
    """
    scale, strength = _T1_OF_FIELD[scanner.field_t], []
    for name in TISSUES:
        density, t1, t2 = _PROPERTIES[name]
        t1 *= scale if name != "csf" else 1
        if protocol.name == "T1ce" and name in ("enhancing", "scalp"):
            t1 = _RELAXED_MS if name == "enhancing" else t1 * 0.9
        recovered = 1 - np.exp(-protocol.repetition / t1)
        if protocol.inversion:
            recovered = abs(1 - 2 * np.exp(-protocol.inversion / t1) + np.exp(-protocol.repetition / t1))
        strength.append(density * recovered * np.exp(-protocol.echo / t2))
    relative = np.array(strength, dtype=np.float32) / np.float32(max(strength[:2]))
    return np.asarray(np.einsum("t,tzyx->zyx", relative, shares), dtype=np.float32)


def shaded(scanner: MrScanner, image: Field, rng: np.random.Generator) -> Field:
    """The coils' sensitivity, which varies slowly over the head."""
    field = smooth_volume(rng, SHAPE, (22, 20, 20))
    return np.asarray(image * np.exp(np.float32(scanner.bias) * field), dtype=np.float32)


def acquired(scanner: MrScanner, slices: Field, thick: int, rng: np.random.Generator) -> Any:
    """Stored values, uint16: noise of both channels makes the magnitude Rician (Gudbjartsson and Patz, Magn Reson Med
    34:910, 1995), less in thicker slices."""
    noise = np.float32(scanner.noise * np.sqrt(2 / thick))
    real, imaginary = rng.standard_normal((2, *slices.shape), dtype=np.float32) * noise
    magnitude = np.hypot(slices + real, imaginary)
    return np.rint(magnitude * np.float32(600 * scanner.gain)).clip(0, _MOST_STORED).astype(np.uint16)


def attributes_of(scanner: MrScanner, protocol: Protocol, sex: str) -> dict[str, Any]:
    """What PS3.3 A.4 requires beyond patient, study, equipment and plane: MR Image (C.8.3.1)."""
    inverted = protocol.inversion > 0
    return {
        "SOPClassUID": _MR_IMAGE_STORAGE,
        "Modality": "MR",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "SE"],
        "SeriesDescription": protocol.described,
        "BodyPartExamined": "BRAIN",
        "PatientSex": sex,
        "ScanningSequence": ["SE", "IR"] if inverted else "SE",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "MagneticFieldStrength": scanner.field_t,
        "RepetitionTime": round(protocol.repetition, 1),
        "EchoTime": round(protocol.echo, 1),
        "EchoTrainLength": 1,
        **({"InversionTime": round(protocol.inversion, 1)} if inverted else {}),
        **({"ContrastBolusAgent": "Phantom gadolinium"} if protocol.name == "T1ce" else {}),
    }

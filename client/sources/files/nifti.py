"""Source: a BIDS data set (Brain Imaging Data Structure 1.10): NIfTI volumes, labels in ``participants.tsv``.

NIfTI files are derived from a hospital's originals for research: acquisition data and history are lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from client.errors import EmptySource, LabelsMatchNothing, SiteMisconfigured
from client.reading.dicom import Measured
from client.sources.labels.rows import listed, read_table, shown
from client.sources.labels.table import label_of, permitted
from client.sources.nifti_volume import NiftiReader
from client.sources.record import Listing, Record, signature_of
from client.sources.settings import NiftiSource
from tasks.task import Scan, Task

_NO_VALUE = "n/a"  # BIDS: how a table says that it does not know


def list_nifti(source: NiftiSource, task: Task, withdrawn: frozenset[str]) -> Listing:
    """Every labelled volume with the source's suffix and entities. A participant is withdrawn as ``sub-01`` or ``01``.

    For a task with sequences the volume has to be of the first one; the files beside it give the others. Where it is
    not, it is counted as ``NO_SERIES_OF_`` the sequence.

    Raises:
        EmptySource: no such volume is there.
        LabelsMatchNothing: no volume has a participant with a label.
        SiteMisconfigured: ``participants.tsv`` cannot be read, lacks a column, or has labels that no class has.
    """
    left_out: Counter[str] = Counter()
    labels = _participants(source, task, left_out)
    volumes = _volumes(source)
    if not volumes:
        raise EmptySource(
            f"no sub-*/**/*_{source.suffix}.nii(.gz) with {source.entities or 'any entity'} under {source.path}"
        )
    records = []
    seen = set()
    for path in volumes:
        participant = path.relative_to(source.path).parts[0]
        seen.add(participant)
        if participant in withdrawn or participant.removeprefix("sub-") in withdrawn:
            left_out["WITHDRAWN"] += 1
        elif participant not in labels:
            left_out["IMAGE_WITHOUT_LABEL"] += 1
        elif not path.is_file():
            left_out["FILE_ABSENT"] += 1  # DataLad and git-annex leave a dangling link for what was not fetched
        elif not task.sequences:
            records.append(_record(source.path, path, participant, labels[participant], None))
        elif (scan := _scan(path, task)) is None:
            left_out[f"NO_SERIES_OF_{task.sequences[0].name.upper()}"] += 1
        else:
            records.append(_record(source.path, path, participant, labels[participant], ReadNifti(scan)))
    if not seen & labels.keys():
        raise LabelsMatchNothing(
            f"participants.tsv of {source.path} has participants like {next(iter(labels), 'none')!r}, the folders have "
            f"names like {min(seen)!r}"
        )
    left_out["LABEL_WITHOUT_IMAGE"] += len(labels.keys() - seen)
    return Listing(records, +left_out)


def _record(root: Path, path: Path, participant: str, label: float, scan: ReadNifti | None) -> Record:
    reader = NiftiReader(path)
    name = path.relative_to(root).as_posix()
    signature = "+".join(signature_of(one.path) for one in ([reader] if scan is None else scan.readers.values()))
    return Record(
        patient_id=participant, image_id=name, label=label, signature=signature, read=reader.picture, read_scan=scan
    )


@dataclass(frozen=True)
class ReadNifti:
    """Reads volumes of one examination, one file each; outlines are not read."""

    readers: dict[str, NiftiReader]

    def __call__(self, values: Callable[[Path, int], Measured] | None = None) -> Scan:
        """Volumes by name of the sequence; ``values`` is for DICOM and not used. Raises ``Unreadable``."""
        return Scan({name: reader.volume() for name, reader in self.readers.items()})


def _scan(path: Path, task: Task) -> dict[str, NiftiReader] | None:
    """The file as the task's first sequence, with other sequences from files next to it; ``None`` if the file is not
    the first.

    BIDS tells a sequence by suffix and entities (``ce-gadolinium_T1w``), which is read as a SeriesDescription would be.
    """
    if _sequence(path, task) != task.sequences[0].name:
        return None
    volumes = {task.sequences[0].name: NiftiReader(path)}
    for beside in sorted(path.parent.glob("*.nii*")):
        name = _sequence(beside, task)
        if name is not None and name not in volumes and beside.is_file():
            volumes[name] = NiftiReader(beside)
    return volumes


def _sequence(path: Path, task: Task) -> str | None:
    entities = path.name.partition(".")[0].split("_")
    described = "_".join(part for part in entities if not part.startswith(("sub-", "ses-")))
    return next((sequence.name for sequence in task.sequences if sequence.finds(described)), None)


def _volumes(source: NiftiSource) -> list[Path]:
    """Only raw data: ``derivatives`` and ``sourcedata`` do not start with ``sub-``."""
    wanted = {f"{entity}-{value}" for entity, value in source.entities.items()}
    files = []
    for path in source.path.glob("sub-*/**/*.nii*"):
        stem, _, ending = path.name.partition(".")
        *entities, suffix = stem.split("_")
        if ending in ("nii", "nii.gz") and suffix == source.suffix and wanted <= set(entities):
            files.append(path)
    return sorted(files)


def _participants(source: NiftiSource, task: Task, left_out: Counter[str]) -> dict[str, float]:
    path = source.path / "participants.tsv"
    labels: dict[str, float] = {}
    wrong, contradicted = [], set()
    table = read_table(path, delimiter="\t")
    if missing := {"participant_id", source.label_column} - set(table.columns):
        raise SiteMisconfigured(f"{path} lacks the column(s) {', '.join(sorted(missing))}")
    for line, row in zip(table.lines, table.rows, strict=True):
        name, text = row["participant_id"].strip(), row[source.label_column].strip()
        label = label_of(text, task.answer, task.classes)
        if text in ("", _NO_VALUE):
            left_out["PARTICIPANT_WITHOUT_LABEL"] += 1
        elif label is None or not name.startswith("sub-"):
            wrong.append(f"line {line}: participant_id={shown(name)}, {source.label_column}={shown(text)}")
        elif name not in labels:
            labels[name] = label
        elif labels[name] == label:
            left_out["DUPLICATE_LABEL_ROW"] += 1
        else:
            contradicted.add(name)
    if wrong:
        raise SiteMisconfigured(
            f"{path}: a label must be {permitted(task.answer, task.classes)}, or n/a:\n  {listed(wrong)}"
        )
    left_out["CONTRADICTING_LABEL_ROWS"] += len(contradicted)
    return {name: label for name, label in labels.items() if name not in contradicted}

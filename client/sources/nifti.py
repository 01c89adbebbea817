"""Source: a BIDS data set (Brain Imaging Data Structure 1.10): NIfTI volumes, labels in ``participants.tsv``.

NIfTI is what research leaves of a hospital's originals: acquisition and history are lost, so it counts as derived data.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from client.errors import EmptySource, LabelsMatchNothing, SiteMisconfigured
from client.sources.labels import meanings
from client.sources.nifti_volume import NiftiReader
from client.sources.record import Listing, Record
from client.sources.settings import NiftiSource
from tasks.task import Task

_NO_VALUE = "n/a"  # BIDS: how a table says that it does not know


def list_nifti(source: NiftiSource, task: Task, withdrawn: frozenset[str]) -> Listing:
    """Every labelled volume with the source's suffix and entities. A participant is withdrawn as ``sub-01`` or ``01``.

    Raises:
        EmptySource: no such volume is there.
        LabelsMatchNothing: no volume has a participant with a label.
        SiteMisconfigured: ``participants.tsv`` cannot be read, lacks a column, or has labels that no class has.
    """
    left_out: Counter[str] = Counter()
    labels = _participants(source, task.classes, left_out)
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
        else:
            records.append(_record(source.path, path, participant, labels[participant]))
    if not seen & labels.keys():
        raise LabelsMatchNothing(
            f"participants.tsv of {source.path} has participants like {next(iter(labels), 'none')!r}, the folders are "
            f"called like {min(seen)!r}"
        )
    left_out["LABEL_WITHOUT_IMAGE"] += len(labels.keys() - seen)
    return Listing(records, +left_out)


def _record(root: Path, path: Path, participant: str, label: int) -> Record:
    stat = path.stat()
    reader = NiftiReader(path)
    name = path.relative_to(root).as_posix()
    return Record(participant, name, label, f"{stat.st_size}-{stat.st_mtime_ns}", reader.picture, reader.volume)


def _volumes(source: NiftiSource) -> list[Path]:
    """Files of the raw data only: ``derivatives`` and ``sourcedata`` do not start with ``sub-``."""
    wanted = {f"{entity}-{value}" for entity, value in source.entities.items()}
    found = []
    for path in source.path.glob("sub-*/**/*.nii*"):
        stem, _, ending = path.name.partition(".")
        *entities, suffix = stem.split("_")
        if ending in ("nii", "nii.gz") and suffix == source.suffix and wanted <= set(entities):
            found.append(path)
    return sorted(found)


def _participants(source: NiftiSource, classes: tuple[str, str], left_out: Counter[str]) -> dict[str, int]:
    path = source.path / "participants.tsv"
    meaning = meanings(classes)
    labels: dict[str, int] = {}
    wrong, contradicted = [], set()
    for line, row in enumerate(_rows(path, source.label_column), start=2):
        name, text = (row["participant_id"] or "").strip(), (row[source.label_column] or "").strip()
        label = meaning.get(text.casefold())
        if text in ("", _NO_VALUE):
            left_out["PARTICIPANT_WITHOUT_LABEL"] += 1
        elif label is None or not name.startswith("sub-"):
            wrong.append(f"line {line}: participant_id={name!r}, {source.label_column}={text!r}")
        elif name not in labels:
            labels[name] = label
        elif labels[name] == label:
            left_out["DUPLICATE_LABEL_ROW"] += 1
        else:
            contradicted.add(name)
    if wrong:
        shown = "\n  ".join(wrong[:10]) + ("" if len(wrong) <= 10 else f"\n  and {len(wrong) - 10} more")
        raise SiteMisconfigured(f"{path}: a label must be one of {', '.join(classes)}, 0, 1 or n/a:\n  {shown}")
    left_out["CONTRADICTING_LABEL_ROWS"] += len(contradicted)
    return {name: label for name, label in labels.items() if name not in contradicted}


def _rows(path: Path, label_column: str) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter="\t")
            if missing := {"participant_id", label_column} - set(reader.fieldnames or ()):
                raise SiteMisconfigured(f"{path} lacks the column(s) {', '.join(sorted(missing))}")
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SiteMisconfigured(f"cannot read {path}: {error}") from error

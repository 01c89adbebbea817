"""Canaries are planted in a hospital's images; a real study runs, things go wrong, and none of them comes out.

Everything that is sent in either direction, everything that is printed or logged (at the level of debugging), every
file of the server, MLflow's among them, is searched for names, numbers, UIDs, paths and grey values, in every form that
they could take. The last test shows that the search would find them.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from client.setup.partition import partition
from tasks import task as tasks
from tests.federation.canaries import (
    PIXELS,
    TEXTS,
    all_forms,
    forms_of_bytes,
    forms_of_numbers,
    found,
    plant,
    telling_run,
)
from tests.federation.canary_study import MARK, SPOILT, STORY
from tests.federation.embedded import HOSPITALS, configure, folder_of

OF_HOSPITALS = ("phantoms", "hospitals", "sites", "sites-alone")
"""Folders that are a hospital's own; everything else under the output folder is the server's."""
RUN = 4
ENOUGH = 20


@dataclass(frozen=True)
class Played:
    """A study that was played with canaries, and where its traces are."""

    output: Path
    sent: Path
    printed: list[bytes]
    """By act: standard output and standard error."""

    @property
    def records(self) -> Path:
        """The hospitals' own files, as they were before the leak."""
        return self.sent / "books"

    def messages(self, act: str, way: str) -> list[bytes]:
        return [path.read_bytes() for path in sorted((self.sent / act).glob(f"*-{way}"))]

    def of_the_server(self) -> dict[str, bytes]:
        """Every file that is no hospital's own, by its path."""
        files = (path.relative_to(self.output) for path in self.output.rglob("*") if path.is_file())
        return {str(f): (self.output / f).read_bytes() for f in files if not set(f.parts) & set(OF_HOSPITALS)}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    output, sent = tmp_path_factory.mktemp("canary"), tmp_path_factory.mktemp("sent")
    study = configure(output, "canary")
    partition(study, tasks.get(study.task.name), output)  # draws the phantoms
    plant(folder_of(output / "phantoms", SPOILT))
    command = [sys.executable, "-m", "tests.federation.canary_study", str(output), str(sent)]
    with (sent / "stdout").open("wb") as out, (sent / "stderr").open("wb") as err:
        subprocess.run(command, stdout=out, stderr=err, timeout=600, check=False)
    streams = [(sent / name).read_bytes().split(MARK.encode()) for name in ("stdout", "stderr")]
    assert [len(acts) for acts in streams] == [3, 3], streams[1][-1].decode()[-3000:]
    return Played(output, sent, [out + err for out, err in zip(*streams, strict=True)])


@pytest.fixture(scope="module")
def forbidden(played: Played) -> dict[str, bytes]:
    """Every canary in every form, by what it is."""
    forms = {f"{what}: {name}": form for what, text in TEXTS.items() for name, form in all_forms(text).items()}
    forms |= {f"pixels: {name}": form for name, form in forms_of_bytes(PIXELS).items()}
    for number, values in enumerate(_numbers(played)):
        forms |= {f"values {number}.{kind}": form for kind, form in enumerate(forms_of_numbers(values))}
    return forms


def _numbers(played: Played) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Neighbouring values out of every prepared image, and out of what the network's fixed part made of it."""
    catalog = next((played.output / "hospitals").iterdir()) / "catalog"
    images = [load_file(path)["example"] for path in sorted((catalog / "examples").rglob("*.safetensors"))]
    features = [row for path in sorted((catalog / "inputs").iterdir()) for row in load_file(path)["inputs"]]
    assert len(images) > ENOUGH
    assert len(features) > ENOUGH
    yield from (run for values in images + features if (run := telling_run(values, RUN)) is not None)


def test_nothing_of_a_patient_is_sent(played: Played, forbidden: dict[str, bytes]) -> None:
    for act in ("study", "failure"):
        for way in ("down", "up"):
            messages = played.messages(act, way)
            assert len(messages) >= len(HOSPITALS)
            assert [found(message, forbidden) for message in messages] == [[]] * len(messages)


def test_nothing_of_a_patient_is_printed_or_logged(played: Played, forbidden: dict[str, bytes]) -> None:
    study, failure, _ = played.printed
    assert b"DEBUG" in study
    assert b"left out: " in study, "that files could not be read is told, not which"
    assert f"{SPOILT} was left out of rounds (".encode() in study
    assert b"train: refused with INTERNAL; evaluate: refused with INTERNAL" in study
    assert b"refused with NOT_PERMITTED" in study
    assert b"RoundFailed" in failure
    assert found(study, forbidden) == []
    assert found(failure, forbidden) == []


def test_nothing_of_a_patient_is_in_the_servers_files(played: Played, forbidden: dict[str, bytes]) -> None:
    files = played.of_the_server()
    kinds = {Path(name).suffix for name in files}
    assert {".db", ".json", ".svg", ".html", ".md", ".safetensors"} <= kinds
    assert any(name.startswith("mlflow") for name in files)
    assert {name: found(content, forbidden) for name, content in files.items()} == {name: [] for name in files}


def test_the_hospitals_own_records_and_index_name_nobody(played: Played, forbidden: dict[str, bytes]) -> None:
    records = [path for path in played.records.iterdir() if ".sqlite" in path.name]
    records += (played.output / "hospitals").rglob("index.sqlite*")
    assert {path.name for path in records} >= {f"{SPOILT}.audit.sqlite", f"{SPOILT}.ledger.sqlite", "index.sqlite"}
    assert {path.name: found(path.read_bytes(), forbidden) for path in records} == {path.name: [] for path in records}


def test_the_accidents_did_happen_and_the_hospital_knows(played: Played) -> None:
    log = (played.records / f"{SPOILT}.log").read_text()
    assert log.count(f"RuntimeError: {STORY}") == 1
    assert log.count(f"Panic: {STORY}") == 1
    assert "policy.max_rounds" in log


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_is_found_in_every_form(text: str) -> None:
    forms = all_forms(text)
    for name, form in forms.items():
        assert name in found(b"before " + form + b" after", forms)
    for shift in range(3):
        assert found(base64.b64encode(b"x" * shift + text.encode() + b"and more"), forms)


def test_the_search_finds_what_leaks(played: Played, forbidden: dict[str, bytes]) -> None:
    """The same search, in the same places, after a hospital's code was spoilt."""
    sent = {name.split(":")[0].split(" ")[0] for m in played.messages("leak", "up") for name in found(m, forbidden)}
    assert {"PatientID", "PatientName", "AccessionNumber", "InstitutionName"} <= sent, "a story for a code"
    assert "values" in sent, "features for an update"
    printed = {name.split(":")[0] for name in found(played.printed[2], forbidden)}
    assert printed >= TEXTS.keys(), "a line in the log"
    images = list(folder_of(played.output / "phantoms", SPOILT).rglob("* [0-9]*.dcm"))
    assert len(images) > ENOUGH / 2
    for path in images:
        assert {"PatientName: as it is, utf-8", "pixels: bytes"} <= set(found(path.read_bytes(), forbidden)), path

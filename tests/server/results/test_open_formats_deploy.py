"""The application for MONAI Deploy that a bundle carries: it scores DICOM files as the model does, and says what it
left out. The package monai-deploy-app-sdk is not installed here; a stand-in of its classes calls what it would call.
"""

from __future__ import annotations

import csv
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from client.cohort.preparation import blacked_out
from client.reading.dicom import read_frame
from server.results import open_formats
from tasks.contract import digest_of_task
from tasks.task import PhantomHospital
from tests.drawn import draw
from tests.server.results.test_open_formats import SCATTER, drawn, expected


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deploy") / "bundle"
    head, task, network = drawn("breast_ultrasound", SCATTER)
    true = replace(head, task_version=task.example_version, contract=digest_of_task(task.name))
    open_formats.write("bundle", folder, true, task, network)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _, task, _ = drawn("breast_ultrasound", SCATTER)
    folder = tmp_path_factory.mktemp("images")
    draw(task, folder, PhantomHospital(name="elm", patients=3, images_per_patient=(1, 1)), 5)
    (folder / "dicom" / "note.txt").write_text("no image")
    return folder / "dicom"


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_scores_dicom_files_as_the_model_does_and_says_what_it_leaves_out(
    bundle: Path, images: Path, tmp_path: Path
) -> None:
    app = runpy.run_path(str(bundle / "deploy" / "app.py"))
    told = rows(app["score_folder"](images, tmp_path / "results", bundle))
    _, task, network = drawn("breast_ultrasound", SCATTER)
    paths = sorted(images.rglob("1.dcm"))
    assert len(paths) == 3
    assert [row["file"] for row in told if row["score"]] == [str(path.relative_to(images)) for path in paths]
    examples = torch.from_numpy(np.stack([task.read_example(blacked_out(read_frame(path))) for path in paths]))
    wanted = expected(network, examples, 1)[:, 0]
    np.testing.assert_allclose([float(row["score"]) for row in told if row["score"]], wanted, atol=1e-4)
    assert [row["called"] for row in told if row["score"]] == [str(int(score >= 0.5)) for score in wanted]
    left = {row["file"]: row["left out"] for row in told if not row["score"]}
    assert left["note.txt"] == "NOT_DICOM"
    assert {left[str(path.relative_to(images))] for path in images.rglob("2.dcm")} == {"modality"}, "outlines"


def test_another_release_of_the_task_is_refused(bundle: Path, images: Path, tmp_path: Path) -> None:
    app = runpy.run_path(str(bundle / "deploy" / "app.py"))
    head = json.loads((bundle / "configs" / "model.json").read_text())
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "model.json").write_text(json.dumps(head | {"task_version": 99}))
    with pytest.raises(SystemExit, match=r"deploy/requirements\.txt"):
        app["score_folder"](images, tmp_path / "results", tmp_path)


def _stand_in(context: object, run: list[Any]) -> dict[str, ModuleType]:
    """The names that the application imports of MONAI Deploy, as its examples use them."""

    class Fragment:
        def __init__(self) -> None:
            self.compose()

        def compose(self) -> None: ...

        def add_operator(self, operator: Any) -> None:
            run.append(operator)

        def run(self) -> None:
            for operator in run:
                operator.compute(None, None, None)

    class Operator:
        def __init__(self, fragment: Fragment, *conditions: object, name: str) -> None:
            assert isinstance(fragment, Fragment)
            assert conditions == ((fragment, 1),)

    core, conditions = ModuleType("monai.deploy.core"), ModuleType("monai.deploy.conditions")
    core.__dict__.update(AppContext=lambda given: context, Application=Fragment, Operator=Operator)
    conditions.__dict__.update(CountCondition=lambda fragment, count: (fragment, count))
    return {"monai.deploy": ModuleType("monai.deploy"), core.__name__: core, conditions.__name__: conditions}


def test_what_the_packager_starts_goes_from_the_input_folder_to_the_output_folder(
    bundle: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ModuleType("context")
    context.__dict__.update(input_path=str(images), output_path=str(tmp_path / "out"), model_path=str(bundle.parent))
    for name, module in _stand_in(context, []).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(bundle / "deploy")
    monkeypatch.delitem(sys.modules, "app", raising=False)
    runpy.run_path(str(bundle / "deploy" / "__main__.py"))
    assert len(rows(tmp_path / "out" / "scores.csv")) >= 4
    packed = yaml.safe_load((bundle / "deploy" / "app.yaml").read_text())
    assert packed["application"]["inputFormats"] == packed["application"]["outputFormats"] == ["file"]
    assert (bundle / "deploy" / "requirements.txt").read_text() == "consilium-fl==0.2.0\n"

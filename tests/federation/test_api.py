"""The surface for Python programs, and the notebook that shows it; a study of three tiny hospitals is behind both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server import api
from tasks.task import Picture
from tests.federation.embedded import HOSPITALS, TINY

NOTEBOOK = Path(__file__).parent / "first_study.ipynb"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return (*TINY, f"output_dir={tmp_path_factory.mktemp('api')}")


@pytest.fixture(scope="module")
def namespace(settings: tuple[str, ...]) -> dict[str, Any]:
    """What the notebook's cells have left behind, its parameters exchanged as papermill does."""
    names: dict[str, Any] = {}
    for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
            if "parameters" in cell["metadata"].get("tags", []):
                names["settings"] = list(settings)
    return names


def test_the_notebook_runs_and_has_no_output_of_somebody_elses(namespace: dict[str, Any]) -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    assert namespace["found"].report.exists()


def test_progress_tells_of_every_round(namespace: dict[str, Any]) -> None:
    rounds = [each for each in namespace["heard"] if each.label == "federated"]
    assert [(each.done, each.total) for each in rounds] == [(1, 2), (2, 2)]
    assert "epsilon" in rounds[-1].note


def test_frames_have_a_row_for_each_and_the_figures_of_the_results(namespace: dict[str, Any]) -> None:
    found: api.StudyResult = namespace["found"]
    hospitals, arms, rounds = found.to_frame(), found.to_frame("arms"), found.to_frame("rounds")
    assert list(hospitals["hospital"]) == list(HOSPITALS)
    for row in hospitals.to_dict("records"):
        figures = found.results.arms["federated"][row["hospital"]]
        assert row["auc_low"] == pytest.approx(figures.auc_low)
        assert row["epsilon"] == pytest.approx(found.results.epsilon[row["hospital"]])
    assert len(arms) == sum(len(each) for each in found.results.arms.values())
    assert len(rounds) == 2 * len(HOSPITALS)
    assert rounds["epsilon"].is_monotonic_increasing
    with pytest.raises(ValueError, match="hospitals, arms, rounds"):
        found.to_frame("patients")  # type: ignore[arg-type]


def test_a_study_that_has_ended_is_read_again(namespace: dict[str, Any]) -> None:
    found: api.StudyResult = namespace["found"]
    assert api.read_result(found.folder).results == found.results
    with pytest.raises(api.StudyError, match="no results"):
        api.read_result(found.folder / "federated")


@pytest.mark.parametrize(
    ("use", "word", "told"),
    [
        (api.run, "propose=study.json", "leave it out here; the command does it"),
        (api.submit, "propose=study.json", "leave it out here; the command does it"),
        (api.submit, "seed=1", "this study has no server: configure it with experiment=deployed"),
        (lambda study: api.fetch_result(study, "demo-1"), "seed=1", "this study has no server"),
    ],
)
def test_what_a_function_cannot_do_says_which_one_can(
    settings: tuple[str, ...], use: Callable[[api.Study], object], word: str, told: str
) -> None:
    with pytest.raises(api.ConfigError, match=told):
        use(api.configure(*settings, word))


def test_whoever_waits_for_a_server_says_so(settings: tuple[str, ...]) -> None:
    here = ("runtime.address=localhost:1", "runtime.authority=a", "runtime.certificate=c")
    study = api.configure("experiment=deployed", *here, "runtime.follow=false")
    with pytest.raises(api.ConfigError, match="leave it there with submit"):
        api.run(study)
    with pytest.raises(api.ConfigError, match=r"runtime\.authority=a: there is no such file"):
        api.fetch_result(study, "deployed-1")


def test_a_model_scores_and_refuses_another_shape(namespace: dict[str, Any], tmp_path: Path) -> None:
    model: api.Model = namespace["model"]
    examples = np.stack([np.zeros(model.task.example_shape, np.float32), np.ones(model.task.example_shape, np.float32)])
    scores = model.score(examples)
    assert scores.shape == (2,)
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_allclose(model.score(examples[::-1]), scores[::-1], rtol=1e-6)
    with pytest.raises(ValueError, match="needs"):
        model.score(examples[0])
    grey = np.full((60, 80), 0.5, np.float32)
    np.testing.assert_array_equal(model.example(grey), model.example(Picture(grey)))
    assert repr(model).startswith(f"Model(study={model.head.study!r}, task='breast_ultrasound', ")
    (tmp_path / "else.safetensors").write_bytes(b"no model")
    with pytest.raises(api.StudyError, match=r"else\.safetensors"):
        api.load_model(tmp_path / "else.safetensors")
    with pytest.raises(api.StudyError, match="cannot read"):
        api.load_model(tmp_path / "nowhere.safetensors")


def test_a_callback_that_raises_ends_the_study_and_the_next_call_goes_on(settings: tuple[str, ...]) -> None:
    study = api.configure(*settings, "seed=5", "evaluation.arms=[]")

    def leave(progress: api.Progress) -> None:
        if progress.label == "federated":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.run(study, leave)
    heard: list[api.Progress] = []
    found = api.run(study, heard.append)
    assert [each.done for each in heard if each.label == "federated"] == [2]
    assert list(found.to_frame("rounds")["round"].unique()) == [1, 2]


def test_wrong_settings_are_told_at_once() -> None:
    with pytest.raises(api.ConfigError, match=r"privacy\.epsilon"):
        api.configure("experiment=demo", "privacy.epsilon=-3")
    with pytest.raises(api.StudyError, match="demo-0123abcd-7"):
        api.configure("experiment=demo", "resume=demo-0123abcd-7")

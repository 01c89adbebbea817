"""Whatever is typed wrongly after ``consilium`` gets a sentence of ours, exit code 2, and leaves nothing behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from hydra.core.global_hydra import GlobalHydra

from server import command_line

WRONG = [
    # words that are no settings
    ("trian", "trian: is not KEY=VALUE; set KEY=VALUE"),
    ("demo", "demo: is not KEY=VALUE; did you mean experiment=demo?"),
    ("compre a b", "compre: is not KEY=VALUE; did you mean `consilium compare`?"),
    ("=3", "=3: is not KEY=VALUE; put a value with special characters in quotes: KEY='VALUE'"),
    ("seed==3", "seed==3: is not KEY=VALUE"),
    ("seed=[1", "seed=[1: is not KEY=VALUE"),
    ("federation.hospitals={elm", "federation.hospitals={elm: is not KEY=VALUE"),
    ("seed=1,2", "seed=1,2: several values are a sweep, which starts with consilium -m; a list stands in brackets"),
    # choices
    (
        "model=densenet",
        "model=densenet: there is no such choice; did you mean model=densenet121? The choices are custom, densenet",
    ),
    (
        "experiment=dmo",
        "experiment=dmo: there is no such choice; did you mean experiment=demo? The choices are breast_",
    ),
    ("strategy=xxxxxxx", "strategy=xxxxxxx: there is no such choice; the choices are cyclic, ditto, fedadagrad"),
    ("experiment=demo.yaml", "experiment=demo.yaml: there is no such choice; did you mean experiment=demo?"),
    ("task=", "task=: there is no such choice; the choices are brain_mr"),
    ("task=null", "task=null: must be one choice; set task=NAME"),
    ("model=[vit,unet]", "model=[vit,unet]: must be one choice; set model=NAME"),
    ("++model=vit", "++model=vit: is a choice; set model=vit"),
    ("+experiment=demo", "+experiment=demo: is a choice; set experiment=demo"),
    ("model@strategy=vit", "model@strategy=vit: is a choice; set model=vit"),
    ("~model", "model.name=null: must be one of scatter_linear"),
    (
        "model.name=densenet121",
        "model.name=densenet121: belongs to the choice and is scatter_linear; set another with mod",
    ),
    # settings that there are not
    ("experimnt=demo", "experimnt=demo: a study has no such setting; did you mean experiment=demo?"),
    ("privacy.epsilonn=3", "privacy.epsilonn=3: privacy has no such setting; did you mean privacy.epsilon=3?"),
    ("trainin.steps=3", "trainin.steps=3: a study has no such setting; did you mean training.steps=3?"),
    ("steps=3", "steps=3: a study has no such setting; did you mean training.steps=3?"),
    ("+strategy.mu=1", "strategy.mu=1: fedavg has no such setting; it belongs to strategy=fedprox"),
    (
        "model.groups=4",
        "model.groups=4: scatter_linear has no such setting; it belongs to model=densenet121 or resnet18",
    ),
    (
        "evaluation.gat.auc=0.5",
        "evaluation.gat.auc=0.5: evaluation has no such setting; did you mean evaluation.gate.auc=0",
    ),
    (
        "federation.hospitals.alder.gian=1",
        "phantom has no such setting; did you mean federation.hospitals.alder.gain=1?",
    ),
    ("federation.hospitals.elm.patients=7", "is not there yet; set +federation.hospitals.elm.patients=7"),
    ("+training.steps=3", "+training.steps=3: is set already; set training.steps=3"),
    ("~training.stepz", "~training.stepz: there is no such value to take away; leave it out"),
    ("hydra.jb=3", "the files cannot be composed: Could not override 'hydra.jb'"),
    ("hydra/launcher=nonesuch", "hydra/launcher=nonesuch: is not installed"),
    # wrong types
    ("seed=abc", "seed=abc: must be a whole number; for instance seed=1"),
    ("seed=", "seed=: must be a whole number; for instance seed=1"),
    ("training.steps=1.5", "training.steps=1.5: must be a whole number; for instance training.steps=10"),
    ("training.steps=true", "training.steps=true: must be a number; for instance training.steps=10"),
    ("privacy.epsilon=three", "privacy.epsilon=three: must be a number; for instance privacy.epsilon=8.0"),
    (
        "training.learning_rate=null",
        "training.learning_rate=null: must be a number; for instance training.learning_rate=8",
    ),
    ("evaluation.paired=maybe", "evaluation.paired=maybe: must be true or false; for instance evaluation.paired=true"),
    (
        "evaluation.arms=local",
        "evaluation.arms=local: must be a list in brackets; for instance evaluation.arms=[local,",
    ),
    ("evaluation=3", "evaluation=3: stands for several settings, each to be set by itself"),
    ("federation.hospitals=3", "federation.hospitals=3: must be NAME: VALUE pairs in braces"),
    ("seed.x=3", "seed: must be a whole number; for instance seed=1"),
    ("seed=${oc.env:CONSILIUM_NONESUCH}", "seed: KeyError raised while resolving interpolation"),
    # values that make no sense
    ("privacy.epsilon=-3", "privacy.epsilon=-3: must lie above 0 and not above 1000; for instance privacy.epsilon=8.0"),
    ("wire.up=int4", "wire.up=int4: must be one of float32, float16, int8; did you mean int8?"),
    ("evaluation.subgroups=[sx]", "evaluation.subgroups=sx: must be one of sex, age, vendor; did you mean sex?"),
    ("tracking.name=mlflw", "tracking.name=mlflw: must be one of mlflow, none; did you mean mlflow?"),
    ("resume=perhaps", "resume=perhaps: must be one of auto, never, or the name of a study; for instance resume=auto"),
    ("experiment=busi", "data_root is empty: manifest hospitals read real images; set data_root=FOLDER"),
    ("experiment=deployed", "runtime.address: has no value; set runtime.address=VALUE"),
    ("runtime=superlink", "runtime.certificate: has no value; set runtime.certificate=VALUE"),
    ("-m seed=1,x,3", "seed=x: must be a whole number; for instance seed=1"),
    ("-m privacy.epsilon=3,-1,8", "privacy.epsilon=-1: must lie above 0 and not above 1000"),
    ("-m model=vit,vti", "model=vti: there is no such choice; did you mean model=vit?"),
    ("--help x", "x: is not KEY=VALUE; set KEY=VALUE"),
    ("--cfg job x", "x: is not KEY=VALUE; set KEY=VALUE"),
    ("--config-name x", "choose among them by KEY=VALUE"),
    ("--config-dir nowhere experiment=demo", "--config-dir nowhere: there is no such folder"),
    (
        "experiment=deployed runtime.address=localhost:1 runtime.authority=no runtime.certificate=no",
        "runtime.authority=no: there is no such file",
    ),
    ("--cfg job seed=abc", "seed=abc: must be a whole number"),
    # what only the task knows
    ("task.name=nonesuch", "there is no task 'nonesuch'"),
    ("task=lung_ct", "model=scatter_linear_3d has options for volumes"),
    ("task=chest_xray model=unet", "it outlines structures and this task has none"),
    ("model=densenet121 model.groups=7", "model densenet121"),
]


def never(*arguments: object) -> NoReturn:
    raise AssertionError("nothing may be founded")


@pytest.mark.parametrize(("words", "told"), WRONG, ids=[words for words, _ in WRONG])
def test_it_is_refused_in_a_sentence_and_nothing_is_left_behind(
    words: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    GlobalHydra.instance().clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["consilium", *words.split()])
    with pytest.raises(SystemExit) as caught:
        command_line.main(never, never)
    shown = capsys.readouterr()
    assert caught.value.code == 2
    assert shown.out.startswith("Invalid configuration:\n")
    assert told in shown.out
    assert not re.search(r"Traceback|\bset_struct|object_type|full_key", shown.out + shown.err)
    assert list(tmp_path.iterdir()) == []


def test_all_problems_of_a_command_are_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "trian",
        "model=vti",
        "sed=1",
        "training.steps=0",
        "privacy.epsilon=x",
        "wire.up=int4",
        "strategy.name=krum",
    ]
    monkeypatch.setattr(sys, "argv", ["consilium", *words])
    with pytest.raises(SystemExit):
        command_line.main(never, never)
    told = capsys.readouterr().out.splitlines()[1:]
    assert sorted(line.split(": ")[0] for line in told) == sorted(words)


@pytest.mark.parametrize("words", ["trian model=vti sed=1", "-m seed=1,x"])
def test_the_program_itself_does_so(words: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "server", *words.split()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout.startswith("Invalid configuration:\n")
    assert ended.stderr == ""
    assert list(tmp_path.iterdir()) == []

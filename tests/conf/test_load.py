"""Every choice composes, and what cannot be meant is refused with its key, before anything is done."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf import load, validation
from conf.schema.federation import Phantom, PhantomFederation
from conf.schema.model import ScatterLinear
from conf.schema.strategy import FedAvg
from conf.schema.study import Study
from conf.schema.task import TaskSettings
from conf.schema.training import TrainingSettings

CHOICES = sorted(path for path in load.FOLDER.glob("*/*.yaml"))
REAL_IMAGES = ["data_root=somewhere", "archive=somewhere/pathmnist.npz"]
"""Wanted by choices that read real images, ignored by the others."""
DOOR = ["runtime.address=server:8444", "runtime.authority=authority.crt", "runtime.certificate=me.pem"]
DEPLOYED = ["federation=enrolled", "runtime=superlink", "evaluation.arms=[]", *DOOR]  # go together


def wanted(path: Path) -> list[str]:
    """What a choice needs beside itself."""
    if path.stem in ("enrolled", "superlink"):
        return DEPLOYED
    if path.stem == "shared_noise":
        return ["training.steps=1"]
    options = {"encoder": "model.weights=encoder.safetensors", "custom": "model.entry=my_package.net:build"}
    file = [options[path.stem]] if path.stem in options else []
    return [*REAL_IMAGES, *file, *(DOOR if path.stem == "deployed" else [])]


@cache
def composed(path: Path) -> Study:
    """The study that has a choice and what it wants."""
    return load.load([f"{path.parent.name}={path.stem}", *wanted(path)])


def refusal(*overrides: str) -> str:
    with pytest.raises(load.ConfigError) as caught:
        load.load(overrides)
    return str(caught.value)


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_file_is_a_choice_that_composes(path: Path) -> None:
    study = composed(path)
    text = json.dumps(load.to_plain(study), allow_nan=False)
    assert load.from_plain(json.loads(text)) == study  # as it travels to a server


@pytest.mark.parametrize("path", sorted((load.FOLDER / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_experiment_names_itself_and_opens_with_the_command_that_runs_it(path: Path) -> None:
    assert composed(path).experiment == path.stem
    assert path.read_text("utf-8").splitlines()[1].startswith(f"# consilium experiment={path.stem}")


def test_every_group_of_the_folder_is_in_the_defaults_list() -> None:
    groups = {path.parent.name for path in CHOICES}
    told = set(re.findall(r"^  - (\w+): ", (load.FOLDER / "run.yaml").read_text("utf-8"), re.MULTILINE))
    assert groups == told


def test_the_command_line_wins_over_the_experiment() -> None:
    study = load.load(["experiment=pneumoniamnist", "model.J=1", "privacy=none", *REAL_IMAGES])
    assert isinstance(study.model, ScatterLinear)
    assert (study.model.J, study.model.L, study.privacy.epsilon) == (1, 8, None)


def test_a_hospital_can_be_added_on_the_command_line() -> None:
    study = load.load(["+federation.hospitals={elm: {patients: 7}}"])
    assert isinstance(study.federation, PhantomFederation)
    assert study.federation.hospitals["elm"].patients == 7


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.stepz=3", "training.stepz=3: training has no such setting; did you mean training.steps=3?"),
        ("trainin.steps=3", "trainin.steps=3: a study has no such setting; did you mean training.steps=3?"),
        ("+training.stepz=3", "training.stepz=3: training has no such setting; did you mean training.steps=3?"),
        (
            "++federation.hospitals.alder.pation=3",
            "federation.hospitals.alder.pation=3: phantom has no such setting; "
            "did you mean federation.hospitals.alder.patients=3?",
        ),
        ("+foo=1", "foo=1: a study has no such setting; it has experiment, task, model,"),
        ("+foo.bar=1", "foo.bar=1: a study has no such setting; it has experiment, task, model,"),
        ("epsilon=3", "did you mean privacy.epsilon=3 or evaluation.epsilon=3 or ask.epsilon=3?"),
        ("experimnt=demo", "did you mean experiment=demo?"),
        ("model.groups=8", "model.groups=8: scatter_linear has no such setting; it belongs to model=densenet121 or "),
    ],
)
def test_a_misspelt_key_is_refused_by_name(override: str, told: str) -> None:
    assert told in refusal(override)


def test_all_misspelt_keys_are_told_at_once() -> None:
    told = refusal("+training.stepz=3", "+foo=1", "modl=vit").splitlines()
    assert sorted(line.split(":")[0] for line in told) == ["foo=1", "modl=vit", "training.stepz=3"]


@pytest.mark.parametrize("value", ["abc", "1.5", "[1]", "null", "{a: 1}"])
def test_a_wrong_type_is_refused_by_name(value: str) -> None:
    assert re.fullmatch(
        r"training\.steps(=\S+)?: must be a whole number; for instance training\.steps=10",
        refusal(f"training.steps={value}"),
    )


@pytest.mark.parametrize("group", sorted({path.parent.name for path in CHOICES}))
def test_an_unknown_choice_is_refused_with_those_that_exist(group: str) -> None:
    message = refusal(f"{group}=nonesuch")
    assert message.startswith(f"{group}=nonesuch: there is no such choice; ")
    assert all(path.stem in message for path in CHOICES if path.parent.name == group)
    assert "_" + group not in message


SENSELESS = {
    "federation=three_phantoms": [
        "training.steps=0",
        "training.learning_rate=nan",
        "training.momentum=1",
        "training.weight_decay=inf",
        "training.sample_rate=0",
        "training.images_per_patient=0",
        "privacy.epsilon=0",
        "privacy.delta=1",
        "privacy.clip_norm=-1",
        "federation.rounds=0",
        "federation.quorum=1.5",
        "federation.deadline_s=0",
        "federation.validation_fraction=1",
        "federation.kind=manifest",
        "federation.hospitals.alder.patients=0",
        "federation.hospitals.alder.prevalence=7",
        "federation.hospitals.alder.gain=0",
        "federation.hospitals.alder.frequency_mhz=-1",
        "federation.hospitals.alder.images_per_patient=[4,1]",
        "federation.hospitals.alder.positives=161",
        "federation.hospitals.birch.images_per_patient=[1]",
        "model.J=0",
        "model.L=-1",
        "model.pool=0",
        "model.resolution=-1",
        "model.name=resnet18",
        "strategy.name=bogus",
        "strategy.weighting=bogus",
        "strategy.server_learning_rate=0",
        "strategy.ema=1",
        "training.final_rate=0",
        "training.optimizer=bogus",
        "training.decay=bogus",
        "training.warm_up=-1",
        "federation.participation=1.5",
        "federation.over_selection=-0.1",
        "evaluation.patience=-1",
        "evaluation.least_gain=-1",
        "evaluation.deliver=first",
        "wire.up=int4",
        "evaluation.every=0",
        "evaluation.bins=1",
        "evaluation.arms=[bogus]",
        "evaluation.arm_learning_rate=0",
        "evaluation.arm_final_rate=1.5",
        "runtime.name=bogus",
        "runtime.workers=-1",
        "runtime.device=gpu",
        "runtime.precision=float16",
        "tracking.name=bogus",
        "resume=perhaps",
        "seed=-1",
    ],
    "model=densenet121": ["model.groups=0", "seed=4294967296", "training.learning_rate=inf"],
    "federation=pneumoniamnist_six": ["federation.sizes.ash=0", "federation.label_skew=0"],
    "federation=busi_blocks": ["federation.max_training_patients.block3=0", "federation.min_patients=0"],
}


@pytest.mark.parametrize("choice", SENSELESS)
def test_values_that_make_no_sense_are_refused_by_name_all_at_once(choice: str) -> None:
    told = refusal(choice, *REAL_IMAGES, *SENSELESS[choice]).splitlines()
    assert len(told) == len(SENSELESS[choice])
    keys = [override.split("=")[0] for override in SENSELESS[choice]]
    assert [key for key in keys if not any(line.startswith(f"{key}=") for line in told)] == []


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["+federation.hospitals={pooled: {patients: 9}}"], "federation.hospitals.pooled"),
        (["+federation.hospitals={a b: {patients: 9}}"], "federation.hospitals.a b"),
        (["federation=pneumoniamnist_six"], "data_root is empty"),
        (["federation=busi_blocks"], "data_root is empty"),
        (["evaluation.epsilon=2", "evaluation.bins=1024"], "evaluation.bins=1024"),
        (
            ["evaluation.matrix=3", "evaluation.arms=[pooled]"],
            "evaluation.matrix=3: needs the local arm: set evaluation.arms=[local]",
        ),
        (["evaluation.matrix=2"], "evaluation.matrix=2: there are 3 hospitals; set evaluation.matrix=3, or 0"),
        (["evaluation.shufflings=0"], "evaluation.shufflings=0"),
        (["output_dir="], "output_dir=: is empty; for instance output_dir=outputs"),
        (
            ["model=encoder"],
            "model=encoder: is nothing without a file; set model.weights=FILE",
        ),
        (
            ["model=vit", "model.freeze=encoder"],
            "model.freeze=encoder: it must come from a file; set model.weights=FILE",
        ),
        (["model=vit", "model.freeze=all"], "model.freeze=all: must be one of nothing, encoder"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(overrides: list[str], told: str) -> None:
    assert told in refusal(*overrides)


def test_all_missing_values_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "federation").mkdir()
    (tmp_path / "federation" / "mine.yaml").write_text("defaults: [_medmnist]\n")
    message = refusal(f"hydra.searchpath=[file://{tmp_path}]", "federation=mine", *REAL_IMAGES)
    assert "federation.archive" in message
    assert "federation.sizes" in message


@pytest.mark.parametrize(
    ("line", "told"), [("roundz: 3", "roundz"), ("rounds: many", "rounds"), ("rounds: 0", "federation.rounds=0")]
)
def test_a_fault_in_a_choice_of_the_users_own_is_refused_by_name(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "federation").mkdir()
    file = tmp_path / "federation" / "mine.yaml"
    file.write_text(f"defaults: [_phantom]\nhospitals: {{elm: {{patients: 7}}}}\n{line}\n")
    assert told in refusal(f"hydra.searchpath=[file://{tmp_path}]", "federation=mine")


@settings(max_examples=60, deadline=None)
@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_float_passes_as_a_step_size_but_one_within_the_documents_bounds(value: float) -> None:
    study = Study(
        task=TaskSettings("breast_ultrasound"),
        model=ScatterLinear(),
        strategy=FedAvg(),
        federation=PhantomFederation(hospitals={"elm": Phantom(patients=7)}),
        training=TrainingSettings(learning_rate=value),
    )
    refused = [problem for problem in validation.problems(study) if problem.startswith("training.learning_rate=")]
    assert bool(refused) == (not 1e-6 <= value <= 1e6)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.stepz=3", "training.stepz=3: training has no such setting; did you mean training.steps=3?"),
        ("training.steps=0", "training.steps=0: must lie between 1 and 100000; for instance training.steps=10"),
    ],
)
def test_the_command_refuses_as_well_and_leaves_nothing_behind(tmp_path: Path, override: str, told: str) -> None:
    command = [sys.executable, "-m", "server", override, f"output_dir={tmp_path / 'out'}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert told in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["runtime=superlink", *DOOR], "superlink and enrolled go together"),
        (["federation=enrolled"], "superlink and enrolled go together"),
        ([*DEPLOYED, "runtime.device=cuda:1"], "real hospitals decide for themselves"),
        ([*DEPLOYED, "runtime.precision=bfloat16"], "real hospitals decide for themselves"),
        (
            ["federation=enrolled"],
            "evaluation.arms=[local,pooled,shuffled]: possible in simulation only; set evaluation.arms=[]",
        ),
        ([*DEPLOYED, "runtime.address=https://server"], "runtime.address=https://server: must be HOST:PORT"),
        ([*DEPLOYED, "federation.hospitals=[a,a]"], "names one twice"),
        ([*DEPLOYED, "federation.hospitals=[../a]"], "federation.hospitals=../a: a hospital's name"),
        ([*DEPLOYED, "federation.attempts=0"], "federation.attempts=0"),
        (["experiment=deployed"], "runtime.address: has no value; set runtime.address=VALUE"),
        (["experiment=deployed"], "runtime.authority: has no value; set runtime.authority=VALUE"),
        (["experiment=deployed"], "runtime.certificate: has no value; set runtime.certificate=VALUE"),
    ],
)
def test_what_cannot_be_deployed_is_refused(overrides: list[str], told: str) -> None:
    assert told in refusal(*overrides)


@pytest.mark.parametrize(
    ("part", "value", "told"),
    [
        ("model", {"name": "os.system"}, "model.name=os.system: must be one of"),
        ("federation", 3, "federation.kind=null: must be one of"),
        ("training", {"stepz": 3}, "stepz"),
        ("training", {"steps": "many"}, "training.steps"),
        ("seed", -1, "seed=-1"),
        ("colour", "blue", "colour"),
    ],
)
def test_a_configuration_from_another_machine_is_refused_like_one_of_this(part: str, value: object, told: str) -> None:
    plain = load.to_plain(load.load()) | {part: value}
    with pytest.raises(load.ConfigError, match=re.escape(told)):
        load.from_plain(plain)


def test_what_another_machine_sends_is_told_shortly_and_each_problem_on_one_line() -> None:
    strange = {f"[red]{number}\n{'x' * 10**4}": "y\r" * 10**4 for number in range(10**3)}
    plain = load.to_plain(load.load())
    plain = plain | strange | {"training": plain["training"] | strange, "evaluation": {"arms": ["z" * 10**4] * 10**3}}
    with pytest.raises(load.ConfigError) as caught:
        load.from_plain(plain)
    told = str(caught.value).split("\n")
    assert "the study: has more problems than these" in told
    assert len(told) < 200
    assert all(line.isprintable() and len(line) < 600 for line in told)


def test_an_infinite_epsilon_means_no_privacy() -> None:
    assert load.load(["privacy.epsilon=inf"]).privacy.epsilon is None


@pytest.mark.parametrize(
    "override",
    ["evaluation.subgroups=[name]", "evaluation.subgroups=[sex,sex]", "evaluation.gate.auc=1.5", "evaluation.arms=[x]"],
)
def test_an_evaluation_that_cannot_be_is_refused(override: str) -> None:
    with pytest.raises(load.ConfigError, match=r"evaluation\."):
        load.load([override])


@pytest.mark.parametrize(
    "word",
    [
        "federation.hospitals.alder={patients: 14, images_per_patient: [1, 2]}",
        "federation.hospitals.alder.images_per_patient=[1, 2]",
    ],
)
def test_a_hospitals_settings_are_set_though_its_file_leaves_them_at_their_defaults(word: str) -> None:
    alder = load.load(["experiment=demo", word]).federation.hospitals["alder"]
    assert alder.images_per_patient == (1, 2)
    assert alder.gain == 1.0


def test_what_hydra_would_refuse_though_it_is_known_is_forced_and_recorded_as_it_was_given() -> None:
    words = ["-m", "experiment=demo", "seed=1,2", "+federation.where={a: [b]}", "model.J=2", "hydra.verbose=true"]
    forced = load.for_hydra(words)
    assert forced == ["-m", "experiment=demo", "++seed=1,2", words[3], "++model.J=2", "hydra.verbose=true"]
    assert load.as_given(forced) == words
    assert load.for_hydra(["--help", "foo", "=", "seed=2"]) == ["--help", "foo", "=", "++seed=2"], (
        "none is judged there"
    )


OPTUNA = ("-m", "experiment=demo", "hydra/sweeper=optuna")


@pytest.mark.parametrize("space", ["interval(0,32)", "tag(log,interval(1,1e9))", "int(interval(-3,4))"])
def test_the_ends_of_what_a_search_draws_from_are_checked_before_it_begins(space: str) -> None:
    with pytest.raises(load.ConfigError, match=r"training.learning_rate=.*: must lie between"):
        load.check([*OPTUNA, "hydra.sweeper.direction=maximize", f"training.learning_rate={space}"])


def test_an_interval_without_a_search_is_refused() -> None:
    with pytest.raises(load.ConfigError, match=r"training.learning_rate=interval\(1,32\): an interval is for a search"):
        load.check(["-m", "experiment=demo", "training.learning_rate=interval(1,32)"])


def test_a_search_for_the_smallest_figure_is_refused() -> None:
    """Optuna's own default, by which the worst settings would win."""
    words = [*OPTUNA, "training.learning_rate=interval(1,32)"]
    for direction in ([], ["hydra.sweeper.direction=minimize"]):
        with pytest.raises(load.ConfigError, match=r"set hydra\.sweeper\.direction=maximize"):
            load.check([*words, *direction])


@pytest.mark.parametrize("word", ["hydra/launcher=jobslib", "hydra/sweeper=optuna2"])
def test_a_plugin_that_is_not_there_is_named_with_the_remedy_and_other_problems(word: str) -> None:
    with pytest.raises(load.ConfigError) as refused:
        load.check(["-m", "experiment=demo", word, "hydra.launcher.n_jobs=2", "seed=1,-2"])
    told = str(refused.value).splitlines()
    assert told == [
        "seed=-2: must lie between 0 and 4294967295; for instance seed=1",
        f"{word}: is not installed; run pip install 'consilium-fl[sweep]' -c constraints.txt",
    ]


def test_an_objective_is_one_of_those_that_a_study_tells() -> None:
    with pytest.raises(load.ConfigError, match=r"objective=auc: .*mean_auc"):
        load.check(["experiment=demo", "objective=auc"])


def test_a_sweep_over_nothing_is_refused() -> None:
    with pytest.raises(load.ConfigError, match=r"^seed=range\(4,1\): gives no value$"):
        load.check(["-m", "experiment=demo", "seed=range(4,1)"])


def test_studies_of_a_sweep_do_not_overwrite_each_others_documents() -> None:
    with pytest.raises(load.ConfigError, match=r"propose=a\.json: studies of a sweep would overwrite"):
        load.check(["-m", "experiment=demo", "propose=a.json", "seed=1,2"])
    load.check(["-m", "experiment=demo", "propose=a-${seed}.json", "seed=1,2"])
    load.check(["-m", "experiment=demo", "propose=a.json"])


@pytest.mark.parametrize("word", ["hydra.sweeper.params={seed:1}", "+hydra.sweeper.params.seed='1,2'"])
def test_what_hydra_cannot_set_of_its_own_settings_is_refused(word: str) -> None:
    with pytest.raises(load.ConfigError, match=r"the files cannot be composed: .*NoneType"):
        load.check(["-m", "experiment=demo", word])

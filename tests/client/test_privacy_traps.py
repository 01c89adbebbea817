"""Mistakes that other systems have made, each shown to be a mistake and shown not to be made here.

Where a wrong implementation is short, it stands in the test and fails what ours passes.
"""

from __future__ import annotations

import ast
import inspect
import math
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from opacus.accountants import RDPAccountant
from pydantic import ValidationError
from scipy.special import log_ndtr
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import client
from client.cohort.dataset import Cohort
from client.errors import ModelRefused
from client.ledger.accounting import Mechanism, epsilon_of
from client.privacy import PatientSteps, StepTerms, refuse_unprivate_layers
from client.training.noise import Entropy, entropy
from client.training.train import train_locally
from tasks import task as tasks
from tasks.protocol.study import PrivacyTerms, TrainingTerms
from tests.client.reserving import plan_noise

TASK = tasks.get("breast_ultrasound")
SGD = partial(torch.optim.SGD, lr=1.0)
ALMOST_NONE = 1e-9


def seeded(seed: int = 11) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def head(features: int) -> nn.Linear:
    module = nn.Linear(features, 1, bias=False)
    nn.init.zeros_(module.weight)
    return module


def patients_with(images: list[int], features: int = 3, size: float = 100.0) -> Cohort:
    """Patients of so many identical images each, all pulling the same way, far beyond any clip."""
    ends = np.cumsum(images)
    rows = [torch.arange(end - count, end) for count, end in zip(images, ends, strict=True)]
    return Cohort(torch.full((int(ends[-1]), features), size), torch.ones(int(ends[-1]), 1), rows)


def moved(
    cohort: Cohort, noise: float, clip: float, *, size: int, images: int = 4, steps: int = 1, rate: float = 1.0
) -> Tensor:
    """The update of one call of the hospital's own training, learning rate 1 / 1000 undone."""
    module = head(cohort.inputs.shape[1])
    terms = TrainingTerms(steps, 1e-3, 0.0, 0.0, rate, images)
    reserved = Mechanism(noise, rate, steps)
    update = train_locally(
        module, TASK, cohort, terms, mechanism=reserved, clip_norm=clip, public_size=size, generator=seeded()
    )
    return torch.from_numpy(update["weight"][0]) * 1000


def test_rounds_are_composed_and_not_reported_one_by_one() -> None:
    """An engine that is built anew in each round knows of one round only, and its accountant says so little."""
    a_round, rounds = Mechanism(2.0, 0.2, 3), 20
    forgetful = RDPAccountant()
    forgetful.history = [(a_round.noise_multiplier, a_round.sample_rate, a_round.count)]
    ours = epsilon_of([a_round] * rounds, 1e-5)
    assert ours > 2 * forgetful.get_epsilon(1e-5)
    assert ours == epsilon_of([Mechanism(2.0, 0.2, 3 * rounds)], 1e-5), "as one run of all steps"


@pytest.mark.parametrize("clip", [0.01, 1.0, 50.0])
def test_the_noise_of_real_steps_grows_with_the_clip(clip: float) -> None:
    """Noise that is not in proportion to the clip protects nobody when the clip is raised.

    60,000 coordinates without gradient: their standard deviation is known to 0.3 %, so 2 % is more than six of its own.
    """
    cohort = Cohort(torch.zeros(10, 60_000), torch.ones(10, 1), [torch.arange(i, i + 1) for i in range(10)])
    update = moved(cohort, 1.5, clip, size=10, images=1, steps=4)
    assert float(update.std()) == pytest.approx(math.sqrt(4) * 1.5 * clip / 10, rel=0.02)


def test_noise_stays_in_proportion_when_patients_pull() -> None:
    """Noise of a step with gradients: what differs between two runs of the same patients has twice the variance."""
    cohort, terms = patients_with([3, 1, 7], features=60_000), TrainingTerms(1, 1.0, 0.0, 0.0, 1.0, 2)
    reserved = Mechanism(2.0, 1.0, 1)
    one, other = (
        torch.from_numpy(
            train_locally(
                head(60_000), TASK, cohort, terms, mechanism=reserved, clip_norm=0.3, public_size=3, generator=g
            )["weight"][0]
        )
        for g in (entropy(), entropy())
    )
    assert float((one - other).std()) == pytest.approx(math.sqrt(2) * 2.0 * 0.3 / 3, rel=0.02)


def exact_delta(noise: float, epsilon: float) -> float:
    """Balle and Wang (ICML 2018, theorem 8)."""
    gained = math.exp(log_ndtr(1 / (2 * noise) - epsilon * noise))
    return gained - math.exp(epsilon + log_ndtr(-1 / (2 * noise) - epsilon * noise))


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0, 30.0, 100.0])
def test_the_textbook_gaussian_formula_is_not_used_beyond_its_range(epsilon: float) -> None:
    """sqrt(2 ln(1.25/delta)) / epsilon (Dwork and Roth 2014, theorem A.1) is proven for epsilon below 1 only."""
    delta = 1e-5
    textbook = math.sqrt(2 * math.log(1.25 / delta)) / epsilon
    ours = plan_noise([], 1.0, 1, epsilon, delta)
    assert exact_delta(ours, epsilon) <= delta
    if epsilon > 10:
        assert exact_delta(textbook, epsilon) > delta, "the textbook's noise breaks its own promise"
    if epsilon < 1:
        assert ours < textbook


def test_batch_normalisation_is_refused() -> None:
    """Its buffers are means over patients, and leave with no noise on them; within a batch it mixes patients."""
    for layer in (nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.BatchNorm3d(4), nn.SyncBatchNorm(4)):
        with pytest.raises(ModelRefused, match="BatchNorm"):
            refuse_unprivate_layers(nn.Sequential(nn.Linear(4, 4), layer))


@pytest.mark.parametrize("images", [1, 4, 64])
def test_a_patient_with_many_identical_images_moves_the_model_by_the_clip_and_no_more(images: int) -> None:
    """Clipping each image lets a patient with 64 of them move the model 64 times as far."""
    cohort = patients_with([images])
    update = moved(cohort, ALMOST_NONE, 0.5, size=1, images=images)
    assert float(update.norm()) == pytest.approx(0.5, rel=1e-3)

    module, by_image = head(3), torch.zeros(3)
    for image in cohort.inputs:
        loss = binary_cross_entropy_with_logits(module(image), torch.ones(1))
        gradient = torch.autograd.grad(loss, [module.weight])[0][0]
        by_image += gradient * min(1.0, 0.5 / float(gradient.norm()))
    assert float(by_image.norm()) == pytest.approx(0.5 * images, rel=1e-3)


def test_adding_a_patient_moves_the_sum_by_the_clip_and_no_more() -> None:
    """What neighbouring means, with the added patient pulling against the others and having most images."""
    size, without = 4, patients_with([1, 2, 3])
    against = torch.full((50, 3), -1000.0)
    added = Cohort(torch.cat([without.inputs, against]), torch.ones(56, 1), [*without.rows, torch.arange(6, 56)])
    difference = moved(added, ALMOST_NONE, 0.2, size=size) - moved(without, ALMOST_NONE, 0.2, size=size)
    assert float(difference.norm()) * size <= 0.2 * (1 + 1e-3)


def test_a_round_that_samples_nobody_is_noise_all_the_same() -> None:
    """Skipping it, or sending zeros, tells that nobody was drawn."""
    cohort = Cohort(torch.ones(5, 60_000), torch.ones(5, 1), [torch.arange(i, i + 1) for i in range(5)])
    update = moved(cohort, 2.0, 0.5, size=1, steps=9, rate=1e-6)
    assert float(update.std()) == pytest.approx(3 * 2.0 * 0.5, rel=0.02), "the expected number is at least 1"


def test_the_divisor_is_public_and_not_the_number_drawn() -> None:
    """A mean over those drawn tells how many there were, and has another sensitivity than the noise is made for."""
    for patients in (1, 2, 8):
        update = moved(patients_with([1] * patients), ALMOST_NONE, 1.0, size=20)
        assert float(update.norm()) == pytest.approx(patients / 20, rel=1e-3)


def test_the_divisor_follows_the_rate_and_the_public_size() -> None:
    cohort = patients_with([1] * 400)
    sizes = [float(moved(cohort, ALMOST_NONE, 1.0, size=size, rate=0.5).norm()) for size in (400, 800)]
    assert sizes[0] == pytest.approx(2 * sizes[1], rel=1e-3), "the same draw, twice the public size"
    assert sizes[0] == pytest.approx(1.0, abs=0.25)
    assert sizes[0] != pytest.approx(1.0, abs=1e-6), "the number drawn varies and shows"


def test_no_term_of_a_researcher_switches_noise_off() -> None:
    """The noise comes from the mechanism that the hospital's ledger has reserved, and from nowhere else."""
    asked = {f.name for kind in (TrainingTerms, PrivacyTerms) for f in fields(kind)} - {"final_noise"}
    for ratio in (0.0, 0.09, -1.0, float("nan")):  # a schedule spreads epsilon over the rounds, and has bounds
        with pytest.raises(ValidationError, match="final_noise"):
            TrainingTerms(2, 1.0, 0.0, 0.0, 1.0, 1, final_noise=ratio)
    assert not {name for name in asked if "noise" in name or "sigma" in name or "private" in name or "enable" in name}
    assert "mechanism" in inspect.signature(train_locally).parameters
    assert inspect.signature(train_locally).parameters["mechanism"].default is inspect.Parameter.empty


def test_training_without_noise_stands_in_the_account_as_infinite() -> None:
    assert epsilon_of([Mechanism(1.0, 0.1, 10), Mechanism(0.0, 0.1, 1), Mechanism(1.0, 0.1, 10)], 1e-5) == math.inf


def test_the_clip_does_not_follow_the_gradients() -> None:
    """A clip at a percentile of the gradients grows with one patient's; ours is the order's number.

    The outlier is ten thousand times longer than the rest: it moves the model by the clip and the noise stays.
    """
    ordinary, outlier = torch.full((9, 3), 0.1), torch.full((1, 3), 1000.0)
    rows = [torch.arange(i, i + 1) for i in range(10)]
    cohort = Cohort(torch.cat([ordinary, outlier]), torch.ones(10, 1), rows)
    without = Cohort(ordinary, torch.ones(9, 1), rows[:9])
    difference = moved(cohort, ALMOST_NONE, 0.5, size=1) - moved(without, ALMOST_NONE, 0.5, size=1)
    assert float(difference.norm()) == pytest.approx(0.5, rel=1e-3)

    lengths = torch.cat([ordinary, outlier]).norm(dim=1)
    by_percentile = float(torch.quantile(lengths, 0.95))
    assert by_percentile > 100 * float(torch.quantile(lengths[:9], 0.95)), "one patient's doing"


def test_the_clip_of_an_order_is_one_number() -> None:
    (clip,) = (f for f in fields(PrivacyTerms) if "clip" in f.name)
    assert clip.name == "clip_norm"
    assert "Callable" not in str(clip.type)


def test_two_runs_in_production_share_no_noise_whatever_is_seeded() -> None:
    cohort = Cohort(torch.zeros(5, 1000), torch.ones(5, 1), [torch.arange(i, i + 1) for i in range(5)])
    updates = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        terms, reserved = TrainingTerms(2, 1.0, 0.0, 0.0, 1.0, 1), Mechanism(1.0, 1.0, 2)
        update = train_locally(
            head(1000), TASK, cohort, terms, mechanism=reserved, clip_norm=1.0, public_size=5, generator=entropy()
        )
        updates.append(update["weight"])
    assert not (updates[0] == updates[1]).any()


MAY_SEED = {
    *("client/training/noise.py", "client/training/trial.py"),
    *("client/setup/partition.py", "client/setup/archive_sites.py"),
}
"""The first seeds what is not private from the operating system, the second draws images on which a device is tried;
the others deal out patients of simulated sites."""
SEEDS = {"manual_seed", "seed", "default_rng", "RandomState", "Random", "set_state", "set_rng_state", "Generator"}


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [
        (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""), node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


def seeding(source: str) -> list[str]:
    found = [(name, call) for name, call in calls(ast.parse(source)) if name in SEEDS]
    # numpy's generator without a seed takes its state from the operating system
    seeded = [(name, call) for name, call in found if name != "default_rng" or call.args or call.keywords]
    return [f"line {call.lineno}: {name}" for name, call in seeded]


def sources() -> dict[str, str]:
    root = Path(client.__file__).parent
    return {f"client/{path.relative_to(root).as_posix()}": path.read_text("utf-8") for path in root.rglob("*.py")}


def test_no_code_of_the_hospital_seeds_anything() -> None:
    found = {file: seeding(source) for file, source in sources().items() if file not in MAY_SEED}
    assert {file: lines for file, lines in found.items() if lines} == {}


def test_the_search_for_seeds_finds_them() -> None:
    found = seeding("g = torch.Generator().manual_seed(1)\nrng = np.random.default_rng(0)")
    assert sorted(found) == ["line 1: Generator", "line 1: manual_seed", "line 2: default_rng"]


def test_the_hospitals_app_trains_and_reports_with_entropy() -> None:
    """By its source: each call gives a fresh ``entropy()``, never a generator that something else has made; whom steps
    draw is asked of ``draws``, by the noise that the ledger has reserved."""
    source = sources()["client/app.py"]
    for wanted, generator in (
        *(("summed_step", "entropy()"), ("summed_evaluate_report", "entropy()"), ("evaluate_report", "entropy()")),
        *(("train_locally", "generator"), ("survey_report", "entropy()")),
        ("partial", "draws, order.study.seed, mechanism.noise_multiplier"),
    ):
        given = [
            ", ".join(ast.unparse(argument) for argument in [*call.args, *(k.value for k in call.keywords)])
            for name, call in calls(ast.parse(source))
            if name == wanted
        ]
        assert [one for one in given if generator in one], wanted
    assert source.count("generator = ") == source.count("generator = self.draw(self.taken)") == 1
    assert "from client.training.noise import draws, entropy" in source
    assert isinstance(entropy(), Entropy)


@pytest.mark.parametrize("patients", [1, 5, 6, 7, 11])
def test_the_last_batch_is_neither_dropped_nor_weighted_otherwise(patients: int) -> None:
    """In threes, and so that each patient has a direction of its own."""
    inputs = 100 * torch.eye(patients).unsqueeze(1)
    module = head(patients)
    steps = PatientSteps(module, binary_cross_entropy_with_logits, SGD, StepTerms(ALMOST_NONE, 1.0, 4.0, 64), seeded())
    steps._gradients.patients_at_once = 3
    steps.step(list(range(patients)), lambda chosen: (inputs[chosen], torch.ones(len(chosen), 1, 1)))
    assert torch.allclose(module.weight[0], torch.full((patients,), 0.25), rtol=1e-3)

"""The model card, after Mitchell et al. (FAT* 2019): what the model is, its use, its data, its performance, its limits.

Every section must say something: a card with an empty section is not written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from server.pages import answers
from server.pages.provenance import code_digest, versions
from server.pages.report import Story, about, compared, distance, per_cent, point, selected, summary
from server.results.average import on_average
from server.results.figures import Figures
from server.results.verdicts import verdicts
from server.study.gaussian_privacy import epsilon_at
from tasks import contract as contracts
from tasks import task as tasks
from tasks.exclusion import sentences
from tasks.task import Task

_SMALL_DELTA = 1e-6
_MARKUP = re.compile(r"[&<>\[\]`|*_~\\$@]|(?<=:)//|www\.|^[-+=#:]|^\d+[.)]", re.IGNORECASE)
"""What has a meaning in CommonMark, GitHub's dialect of it or HTML: emphasis, code, links (bare ones as well), images,
tags, table cells, and at the start of a line headings and lists."""


def plain(text: object) -> str:
    """Text from others as Markdown that shows it on one line and nothing more.

    Characters with a meaning become character references, which have none (CommonMark 0.31, section 2.5).
    """
    words = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return _MARKUP.sub(lambda match: "".join(f"&#{ord(c)};" for c in match[0]), words)


def _code(text: object) -> str:
    """Text from others as inline code, where only a backtick has a meaning."""
    return f"`{''.join(c if c.isprintable() and c != '`' else ' ' for c in str(text)).strip() or '-'}`"


def card(story: Story, model_sha256: str) -> str:
    """The card as Markdown.

    Args:
        model_sha256: of the file with the weights.

    Raises:
        ValueError: a section is empty.
    """
    written = sections(story, model_sha256)
    if empty := [heading for heading, text in written.items() if not text.strip()]:
        raise ValueError(f"the model card has empty sections: {', '.join(empty)}")
    head = f"# Model card: {plain(story.results.study)}\n\n**Research only. Not for clinical use.**\n"
    return head + "".join(f"\n## {heading}\n\n{text.strip()}\n" for heading, text in written.items())


def sections(story: Story, model_sha256: str) -> dict[str, str]:
    """Text by heading."""
    task = tasks.get(story.config["task"]["name"])
    return {
        "What it is": _what(story, task, model_sha256),
        "Intended use": (
            f"Research on one question: {task.question} It gives a score between 0 and 1 for {task.classes[1]}.\n\n"
            "It is not a medical device. It must not be used for the care of any patient, with or without a reader."
        ),
        "Training data": "\n".join(_trained_on(story, task)),
        "Input images": (
            f"Images that meet the acquisition contract of `{task.name}` (`{contracts.digest_of_task(task.name)}`); "
            f"they become inputs of shape {task.example_shape}. On other images its output is meaningless."
        ),
        "Privacy": _privacy(story),
        "Performance": "\n".join(_figures(story, task)),
        "Subgroups": "\n".join(_groups(story)),
        "Compared with each hospital alone": "\n".join(_gains(story)),
        "Limits": "\n".join(_limits(story)),
        "Provenance": (
            f"Code `{code_digest()}`.\n{', '.join(f'{name} {number}' for name, number in versions().items())}.\n"
            f"Study {_code(story.results.study)}, seed {plain(story.config['seed'])}."
        ),
    }


def _what(story: Story, task: Task, sha256: str) -> str:
    model = story.config["model"]
    options = plain(", ".join(f"{key} {value}" for key, value in model.items() if key != "name"))
    return (
        f"The trainable part of a {_code(model['name'])} ({options}) after {len(story.rounds)} rounds of federated "
        f"training with {_code(story.config['strategy']['name'])}. Weights: safetensors, SHA-256 `{sha256}`."
    )


def _trained_on(story: Story, task: Task) -> Iterator[str]:
    yield f"Patients of {len(story.results.epsilon)} hospitals; their images never left the hospitals."
    if story.sizes:
        declared = ", ".join(f"{plain(name)} {size:,}" for name, size in sorted(story.sizes.items()))
        yield f"Training patients, as each declares them in public, rounded: {declared}.\n"
    yield "Validation patients, who were not trained on:"
    yield f"\n| hospital | {task.classes[0]} | {task.classes[1]} |\n|---|---|---|"
    federated = story.results.details.get("federated")
    for name in story.results.epsilon:
        figures = None if federated is None else federated.hospitals.get(name)
        known = figures is not None
        sizes = [about(n, figures.size_noise) for n in (figures.negatives, figures.positives)] if figures else []
        yield f"| {plain(name)} | {' | '.join(sizes) if known else 'not evaluated | not evaluated'} |"
    yield from ("", *map(plain, story.results.notes))


def _privacy(story: Story) -> str:
    terms = story.config["privacy"]
    if terms["epsilon"] is None:
        return "None: no noise was added. The weights may reveal single patients; treat them as patient data."
    return "\n".join(f"- {line}" for line in _guarantee(story))


def _guarantee(story: Story) -> Iterator[str]:
    """What a statement of differential privacy must say (Ponomareva et al., "How to DP-fy ML", JAIR 77, 2023, section
    5.3; NIST SP 800-226)."""
    terms, scoring = story.config["privacy"], story.config["evaluation"]["epsilon"]
    spent = {name: value for name, value in story.results.epsilon.items() if value is not None}
    by_hospital = ", ".join(f"{plain(name)} {value:.2f}" for name, value in spent.items())
    yield (
        "Unit: one patient, that is one PatientID of one issuer, with all images. A person with two PatientIDs counts "
        "as two; in two hospitals, their epsilons add up. Neighbours differ by adding or removing one patient."
    )
    if terms.get("noise") == "shared":
        yield (
            "Trust: each hospital adds a part of the noise and masks its part of every sum before anything leaves it. "
            "The epsilon holds as long as enough hospitals are honest: see the note on shared noise above. The "
            "releases are the sum of every step and every histogram of scores, not only this model."
        )
    else:
        yield (
            "Trust: each hospital adds the noise before anything leaves it; the coordinator need not be trusted. The "
            "releases are every round's update and every histogram of scores, not only this model."
        )
    yield (
        f"Training patients: epsilon {terms['epsilon']:g} at delta {terms['delta']:g} was requested. Spent, according "
        f"to the hospitals' ledgers: {by_hospital}{_at_a_smaller_delta(spent, terms['delta'])}."
    )
    yield (
        "Validation patients, who are other patients: no noise; treat their figures as patient data."
        if scoring is None
        else f"Validation patients, who are other patients: epsilon {scoring:g} at delta {terms['delta']:g} at most."
    )
    yield (
        "Accountant: composed privacy loss distributions (dp-accounting), rounded upwards; it assumes Poisson "
        "sampling from each hospital's own random numbers, which nobody else sees."
    )
    yield (
        "Settings: earlier trials on these patients were studies of their own and are charged in their hospitals' "
        "ledgers; the figures here are of this study alone."
    )


def _at_a_smaller_delta(spent: dict[str, float], delta: float) -> str:
    if not spent or delta <= _SMALL_DELTA:
        return ""
    most = max(epsilon_at(value, delta, _SMALL_DELTA) for value in spent.values())
    return f"; at delta {_SMALL_DELTA:g} that is about {most:.1f} at most"


def _figures(story: Story, task: Task) -> Iterator[str]:
    yield plain(summary(story.results))
    federated = story.results.details.get("federated")
    if federated is None:
        return
    threshold = federated.everybody.specific.threshold
    yield f"\nSensitivity and specificity for {task.classes[1]} at a score of {threshold:.2f}; 95 % intervals.\n"
    yield (
        "| | AUC | sensitivity | specificity | Brier | calibration error | slope | intercept |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for name, figures in [*federated.hospitals.items(), ("all patients", federated.everybody)]:
        yield f"| {plain(name)} | {_row(figures, probabilities=not answers.is_measured(story.results))} |"
    yield from ("", *_calibration(story), "", *_secondary(story, task))


def _calibration(story: Story) -> Iterator[str]:
    """What becomes of scores in the model's file."""
    calibrated = story.results.recalibrated
    if answers.is_measured(story.results):
        yield "The score rises with the event and is 0.5 at its threshold; it is no probability."
        return
    if calibrated is None:
        yield "These are scores, not probabilities: nothing has calibrated them."
        return
    line, judged = calibrated.line, calibrated.everybody
    yield (
        f"The file calibrates scores: logit(probability) = {line.intercept:.3f} + {line.slope:.3f} logit(score), "
        f"fitted on all these patients, of whom about {calibrated.prevalence:.0%} were positive; elsewhere another "
        "prevalence shifts probabilities."
    )
    if judged is None:
        yield "How much better they are is not known: no other patients were left to judge it."
        return
    yield (
        "Each hospital calibrated by the others' patients, all patients together: Brier score "
        f"{point(judged.brier, 3)}, calibration error {point(judged.calibration_error, 3)}"
        + (f", slope {point(judged.calibration.slope)}." if judged.calibration else ".")
    )


def _secondary(story: Story, task: Task) -> Iterator[str]:
    """The federated model's answers that are not yes or no, secondary findings and outlines."""
    yield from (f"- {plain(sentence)}" for sentence in answers.sentences(story.results))
    for finding, arms in story.results.findings.items():
        if "federated" in arms:
            auc = arms["federated"].everybody.auc
            figure = "none" if auc is None else point(auc)
            yield f"- {plain(finding.replace('_', ' '))}: AUC {figure}"
    for structure, outlined in story.results.outlines.items():
        if "federated" in outlined:
            figures = outlined["federated"].everybody
            dice = "none" if figures.dice is None else point(figures.dice)
            far = distance(task, figures.distance)
            yield f"- outline of {plain(structure.replace('_', ' '))}: mean Dice {dice}, 95 % Hausdorff distance {far}"
    if story.results.outlines:
        yield from (f"- {plain(sentence)}" for sentence in sentences(task.exclusive))


def _row(figures: Figures, probabilities: bool = True) -> str:
    auc = "none" if figures.auc is None else point(figures.auc)
    rates = [per_cent(figures.specific.sensitivity), per_cent(figures.specific.specificity)]
    if not probabilities:
        return " | ".join([auc, *rates, *["–"] * 4])
    line = figures.calibration
    errors = [point(i, 3) for i in (figures.brier, figures.calibration_error)]
    return " | ".join([auc, *rates, *errors, *([point(line.slope), point(line.intercept)] if line else ["–", "–"])])


def _groups(story: Story) -> Iterator[str]:
    if not story.results.groups:
        yield "Not analysed in this study: performance by sex, age and scanner is unknown."
    for group in story.results.groups:
        figures = group.figures
        figure = "too few patients, or not recorded" if figures is None else _row(figures).split(" | ")[0]
        yield f"- {plain(group.attribute)}, {plain(group.level)}: {figure}"


def _gains(story: Story) -> Iterator[str]:
    if not story.results.gains:
        yield (
            "Not compared: models of single hospitals exist in simulation only, and only when a study requests them. "
            "A real hospital can compare for itself, with `consilium-site compare`."
        )
    gains = story.results.gains
    yield from (f"- {plain(sentence)}" for sentence in (*verdicts(gains), *on_average(gains)))
    yield from filter(None, ["", plain(compared(story.results))])


def _limits(story: Story) -> Iterator[str]:
    yield from (f"- {plain(warning)}" for warning in story.results.warnings)
    yield (
        "- Thresholds were chosen on the same patients that they are evaluated on; the optimism that this gives was "
        "estimated and taken off."
    )
    if text := selected(story):
        yield f"- {plain(text)}"
    if not story.results.spread:
        yield "- Intervals speak of this trained model: how much another training would differ was not measured."
    yield "- Performance is unknown at hospitals that did not take part, on other scanners, and in other years."
    yield "- Scores are known as bins of a histogram only; figures are no finer than that."
    yield "- How each figure is computed, and how often its interval holds the truth: server/STATISTICS.md in the code."

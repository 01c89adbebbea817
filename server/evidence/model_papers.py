"""Outlines of two papers on a study's model: annex IV of the EU AI Act, and the FDA's plan for changes.

Most of either is for people: what the software knows is a part of development and testing.

Tested in ``tests/server/evidence/test_papers.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.evidence.installation import NUMBERS, Server, StudyFiles, by_hospital
from tasks import contract as contracts
from tasks import task as tasks
from tasks.machine.evidence import Paper, Section, Sentence, missing, said


def annex_iv(server: Server, study: StudyFiles) -> Paper:
    """Technical documentation by the numbers of annex IV of Regulation (EU) 2024/1689."""
    return Paper(
        f"annex-iv-{study.name}",
        f"Outline of technical documentation: {study.name}",
        "Regulation (EU) 2024/1689 (AI Act), annex IV, by its numbers 1 to 9. A model that is used only for research "
        "is outside of it (article 2(6)); this is an outline for whoever makes a product of it.",
        [
            Section("1. General description", list(_general(server, study))),
            Section("2. Elements and development", list(_development(server, study))),
            Section("2(g). Validation and testing", list(_validation(server, study))),
            Section("2(h). Cybersecurity", list(_cybersecurity(server))),
            Section("3. Monitoring, functioning and control", list(_control(server, study))),
            Section("4. Fitness of the performance metrics", [
                said("How each figure is computed, and how often its interval holds the truth, is written down.",
                     server.page("server/STATISTICS.md")),
                missing("why these figures are the right ones for the intended use."),
            ]),
            Section("5. Risk management system (article 9)", [missing("the risk management system of the provider. The "
                                                                      "paper attack-risk is an input on privacy.")]),
            Section("6. Changes through the lifecycle", [
                server.told("The model does not learn after the study has ended; another training is another "
                            "study.", study,
                            "state"),
                missing("changes that the provider makes: see the paper on change control."),
            ]),
            Section("7. Harmonised standards", [missing("the list of standards applied in full or in part.")]),
            Section("8. EU declaration of conformity", [missing("the declaration (article 47).")]),
            Section("9. Post-market monitoring", [missing("the system and the plan (article 72).")]),
        ],
    )  # fmt: skip


def change_control(server: Server, study: StudyFiles) -> Paper:
    """A predetermined change control plan, by the FDA's three parts."""
    return Paper(
        f"change-control-{study.name}",
        f"Outline of a plan for predetermined changes: {study.name}",
        "FDA, Marketing Submission Recommendations for a Predetermined Change Control Plan for AI-Enabled Device "
        "Software "
        "Functions (2024), by its three parts.",
        [
            Section("Description of modifications", list(_modifications(server, study))),
            Section("Modification protocol: data management", list(_data(server, study))),
            Section("Modification protocol: re-training", list(_training(server, study))),
            Section("Modification protocol: performance evaluation", list(_thresholds(server, study))),
            Section("Modification protocol: update procedures", list(_updates(server, study))),
            Section("Impact assessment", list(_impact(server, study))),
        ],
    )


def _config(study: StudyFiles, key: str) -> Any:
    return study.get("study.json", f"config.{key}")


def _general(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    name = str(_config(study, "task.name"))
    if name in tasks.names():
        yield server.told(f'It answers one question: "{tasks.get(name).question}"', study, "config.task.name")
    yield said("Research only, and not a medical device: every output says so.", server.page("server/README.md"))
    yield server.told(f"The version is study {study.name}; the weights are model.safetensors, by "
                      "SHA-256.", study, "study",
                      "model_sha256")  # fmt: skip
    yield missing("intended purpose, intended users and patients, the provider, and how it is placed on the market.")
    yield missing("the hardware and software that it is meant to run with, and instructions for use.")


def _development(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    yield server.told(f"(a) A {_config(study, 'model.name')} was trained by {_config(study, 'strategy.name')} in "
                      f"{_config(study, 'federation.rounds')} rounds.", study, "config.model", "config.strategy",
                      "config.federation.rounds")  # fmt: skip
    if weights := _config(study, "model.weights"):
        yield server.told(f"(a) It starts from weights made by others: {weights}.", study, "config.model.weights")
    yield server.told("(b) Settings of its training and of its noise are those of the study.", study, "config.training",
                      "config.privacy")  # fmt: skip
    yield server.told(f"(c) Its rounds took {study.get(NUMBERS, 'seconds') or 0:.0f} s in all.", study, "seconds",
                      file=NUMBERS)  # fmt: skip
    yield from _data(server, study)
    yield missing("(e) measures for human oversight (article 14).")
    yield missing("(f) changes that are determined beforehand: see the paper on change control.")


def _data(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    hospitals = study.get("study.json", "hospitals")
    named = ", ".join(map(str, hospitals)) if isinstance(hospitals, list) else "not named"
    yield server.told(f"Hospitals: {named}. Their images never left them.", study, "hospitals")
    name = str(_config(study, "task.name"))
    if name in tasks.names():
        yield server.told(
            f"Images keep the acquisition contract of {name} ({contracts.digest_of_task(name)[:16]} in this "
            "release); what "
            f"a label means is in tasks/{tasks.folder_of(name)}/labels.md.", study, "config.task.name")  # fmt: skip
    yield server.told("A fraction of the patients was held back for validation, by a keyed hash at each hospital.",
                      study, "config.federation.validation_fraction")  # fmt: skip
    yield missing(
        "where the data come from: years, devices, selection, who labelled and how well; each hospital knows it."
    )


def _training(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    keys = [f"config.{part}" for part in ("training", "model", "strategy", "seed")]
    yield server.told("A training is repeated by the same configuration, as a study of its own.", study, *keys)
    yield server.told("Its privacy is asked for in the configuration, and capped and charged by each hospital.", study,
                      "config.privacy")  # fmt: skip
    yield missing("what triggers a re-training, and who decides it.")


def _validation(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    for hospital, figures in by_hospital(study, "arms.federated"):
        low, high = (figures.get(key) for key in ("auc_low", "auc_high")) if isinstance(figures, dict) else (None, None)
        if low is None or high is None:
            yield missing(f"the AUC at {hospital}: its figures give none.")
            continue
        keys = [f"arms.federated.{hospital}.{end}" for end in ("auc_low", "auc_high")]
        text = f"AUC at {hospital}, on its validation patients: 95 % interval {low:.2f} to {high:.2f}."
        yield server.told(text, study, *keys, file=NUMBERS)
    if study.get(NUMBERS, "groups"):
        yield server.told("Figures by groups of patients are in the report.", study, "groups", file=NUMBERS)
    else:
        yield missing("figures by sex, age and scanner: the study did not ask for them (evaluation.subgroups).")
    yield missing("tests on data of hospitals that did not take part, and of later years.")


def _cybersecurity(server: Server) -> Iterator[Sentence]:
    yield server.checked("The server lets through what is listed, and runs no code that is sent to it.",
                         "The reverse proxy", "No code that a researcher")  # fmt: skip
    yield said("A model is handed over as a file of numbers and a header, checked by SHA-256 and by results that it "
               "must reproduce.", server.page("client/README.md"))  # fmt: skip
    yield missing("cybersecurity of the product that uses the model (article 15).")


def _control(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    warnings = study.get(NUMBERS, "warnings") or []
    for number, warning in enumerate(warnings, 1):
        yield server.told(f"A reader must know first ({number}): {warning}", study, "warnings", file=NUMBERS)
    for hospital, why in by_hospital(study, "dropped"):
        yield server.told(f"{hospital} was left out of rounds: {why}", study, "dropped", file=NUMBERS)
    yield missing("foreseeable unintended outcomes and risks to health, safety and fundamental rights.")
    yield missing("specifications of input data for whoever deploys it, beyond the acquisition contract.")


def _modifications(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    yield server.told("What another study could change is what this one's configuration sets.", study, "config")
    yield missing("which modifications are planned, and that each stays within the intended use.")


def _thresholds(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    gate = _config(study, "evaluation.gate") or {}
    wanted = {key: value for key, value in gate.items() if value is not None} if isinstance(gate, dict) else {}
    if not wanted:
        yield missing("thresholds: the study set no evaluation.gate before it began, so nothing was accepted by one.")
        return
    asked = ", ".join(f"{key} {value:g}" for key, value in wanted.items())
    failed = study.get(NUMBERS, "gate")
    reasons = "; ".join(map(str, failed or ["it has no result"]))
    result = "reached at every hospital" if failed == [] else f"not reached: {reasons}"
    keys = [server.value(study, "study.json", "config.evaluation.gate")]
    keys += [server.value(study, NUMBERS, "gate")] if failed is not None else []
    yield said(f"Thresholds set before the study began: {asked}. They were {result}.", *keys)


def _updates(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    yield server.told("A model is known by its SHA-256, which a hospital types in from another channel.", study,
                      "model_sha256")  # fmt: skip
    yield said("A hospital refuses a file of another task or contract, and one that computes other results there.",
               server.page("client/README.md"))  # fmt: skip
    yield missing("who tells users of a change, how it is undone, and how versions in use are followed.")


def _impact(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    yield server.told("What another training costs in privacy is what this one did, and is charged "
                      "anew.", study, "epsilon",
                      file=NUMBERS)  # fmt: skip
    yield missing("benefits and risks of each modification and of all together, and how the protocol bounds them.")

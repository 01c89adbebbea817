"""Every setting of a study document, one line each, so that two different documents never read the same.

The sentences of ``explain.py`` say what a study does, but not everything. An approval is for the document's digest, so
whoever approves must be able to see everything that the digest covers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from tasks.machine.language import say
from tasks.protocol import documents
from tasks.protocol.documents import Document

MEANINGS: dict[str, str] = {
    "name": "the study's own name, never used twice",
    "release": "the release of Consilium that computes it",
    "task": "the clinical question",
    "task_version": "version of how an image becomes an input",
    "contract": "SHA-256 of the acquisition contract, the rules for images",
    "model": "an option of the network",
    "rounds": "most rounds of training",
    "asked": "most rounds in which one hospital trains",
    "training.steps": "steps in a round",
    "training.learning_rate": "learning rate: how far a step moves the model per unit of gradient",
    "training.momentum": "momentum: how much of the last step is repeated",
    "training.weight_decay": "weight decay: how strongly the model is pulled towards zero",
    "training.sample_rate": "probability with which a patient takes part in a step",
    "training.images_per_patient": "images of a patient drawn for a step",
    "training.final_rate": "the last round's learning rate as a fraction of the first one's",
    "training.final_noise": "the last round's noise as a multiple of the first one's",
    "training.optimizer": "how a step follows from the noised gradient",
    "training.clip_always": "whether the effect of a patient is limited where there is no noise as well",
    "training.warm_up": "rounds over which the learning rate rises at first",
    "training.decay": "the curve along which the learning rate falls",
    "training.class_weights": "weight of each answer in training, as the coordinator has chosen it",
    "privacy.epsilon": "epsilon requested for a training patient over the whole study; null means no privacy",
    "privacy.delta": "delta: probability with which that guarantee may fail",
    "privacy.clip_norm": "most that one patient can change the sum of a step; the noise is proportional to it",
    "evaluation.releases": "times the model is evaluated on validation patients",
    "evaluation.bins": "cells of a score histogram, per class",
    "evaluation.edges": "where cells lie: equally wide, or where an earlier, rougher release has found scores",
    "evaluation.paired_at": "hospitals asked to compare two models; none named means all",
    "evaluation.epsilon": "epsilon requested for a validation patient over the whole study; null means no privacy",
    "evaluation.subgroups": "attributes by which scores are grouped",
    "evaluation.paired": "cells for each of two compared models; 0 means no comparison",
    "evaluation.matrix": "other hospitals' models evaluated here; 0 means none",
    "evaluation.findings": "secondary findings whose scores leave",
    "evaluation.structures": "structures whose outline quality leaves",
    "evaluation.answers": "a question with other answers than yes or no, of which tables leave",
    "method.proximal": "pull towards the received model, after the noise; 0 means none",
    "method.control_variates": "whether the server sends a correction for each step",
    "method.stays": "the part of the model that never leaves",
    "method.head_steps": "steps of a round that train only the last layer",
    "method.personal": "pull of a second, personal model towards the shared one; null means no such model",
    "method.towards_mean": "pull of this hospital's own model towards the mean of all; null means one model for all",
    "wire.up": "bits per value that leaves",
    "wire.down": "bits per value that is received",
    "asked_by": "who asks for the study, as the coordinator's server knows them",
    "sizes": "public size that weights a hospital's updates",
    "seed": "what draws of patients begin with, so that the study can be repeated; only without privacy",
    "secure_sum": "fingerprint of the key of a hospital whose part may be in a sum",
    "secure_sum.steps": "whether training is a secure sum at each step, with noise that all share",
    "secure_sum.figures": "whether histograms leave as secure sums only",
    "secure_sum.least_hospitals": "fewest hospitals whose sum is ever made",
    "secure_sum.colluding": "hospitals that may conspire with the coordinator without weakening the promise",
    "secure_sum.spare_steps": "steps that may fail; the noise is planned for them as well",
    "secure_sum.spare_evaluations": "evaluations that may fail; likewise",
    "kind": "a survey is a question before a study",
    "tables": "what patients are counted by; a pair is counted in all its combinations",
    "epsilon": "epsilon requested for a patient in all tables together",
    "delta": "delta: probability with which that guarantee may fail",
    "ages": "years at which one band of ages ends and the next begins",
    "vendors": "makers of scanners with a cell of their own",
    "spacings_mm": "sizes of pixels at which one band ends and the next begins",
    "thicknesses_mm": "thicknesses of slices at which one band ends and the next begins",
    "intensities": "equally wide cells for the brightness of pixels",
}
"""The meaning of a setting, by its name in the document; ``model``, ``sizes`` and the peers of ``secure_sum`` have any
number of entries."""


def every_setting(document: Document) -> list[str]:
    """The whole document, one line per setting: name, value as JSON, meaning. Equal lists mean equal documents."""
    return [
        f"{name} = {json.dumps(value)}: {say(MEANINGS[_meant(name)])}"
        for name, value in _leaves(json.loads(documents.canonical(document)))
    ]


def _meant(name: str) -> str:
    """The nearest name above a setting, or its own, that has a meaning."""
    while name not in MEANINGS and "." in name:
        name = name.rpartition(".")[0]
    return name


def _leaves(values: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Values by their path; an empty dictionary is a value."""
    for key, value in values.items():
        # A key that is no plain word stands in quotes, or it could pretend to be a line of another kind.
        name = above + (key if key.isidentifier() and key.isascii() else json.dumps(key))
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value

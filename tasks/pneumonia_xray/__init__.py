"""Pneumonia or not: a child's chest X-ray. ``labels.md`` says what the label means."""

from tasks.codes import Code
from tasks.pneumonia_xray.example import augment, read_example
from tasks.task import Task

TASK = Task(
    name="pneumonia_xray",
    question="Does this chest X-ray of a child show pneumonia?",
    classes=("normal", "pneumonia"),
    finding=Code("SCT", "233604007", "Pneumonia"),
    procedure=Code("SCT", "399208008", "Plain X-ray of chest"),
    example_shape=(1, 28, 28),
    example_version=1,
    read_example=read_example,
    augment=augment,
)

"""Benign or malignant, and where: a breast lesion on B-mode ultrasound. ``labels.md`` says what the label means."""

from tasks.breast_ultrasound.example import augment, place_masks, read_example, read_masks
from tasks.breast_ultrasound.structures import STRUCTURES
from tasks.codes import Code
from tasks.task import Task

TASK = Task(
    name="breast_ultrasound",
    question="Does this breast ultrasound image show a malignant lesion?",
    classes=("benign", "malignant"),
    finding=Code("SCT", "86049000", "Malignant neoplasm, primary"),
    procedure=Code("SCT", "47079000", "Ultrasonography of breast"),
    example_shape=(1, 128, 128),
    example_version=1,
    read_example=read_example,
    structures=STRUCTURES,
    read_masks=read_masks,
    place_masks=place_masks,
    augment=augment,
)

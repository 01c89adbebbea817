"""Two chambers or four, and the left heart's outlines: apical echocardiography. ``labels.md`` says what that means."""

from tasks.cardiac_ultrasound.example import augment, place_masks, read_example, read_masks
from tasks.cardiac_ultrasound.structures import STRUCTURES
from tasks.codes import Code
from tasks.task import Task

TASK = Task(
    name="cardiac_ultrasound",
    question="Is this apical view of the heart a four-chamber view?",
    classes=("two_chamber", "four_chamber"),
    finding=Code("SCT", "399214001", "Apical four chamber"),
    procedure=Code("SCT", "40701008", "Echocardiography"),
    example_shape=(1, 128, 128),
    example_version=1,
    read_example=read_example,
    structures=STRUCTURES,
    read_masks=read_masks,
    place_masks=place_masks,
    augment=augment,
)

"""The left heart's outlines, which partly exclude each other: apical echocardiography. ``labels.md`` says what the
labels mean.

The pictures are those of ``cardiac_ultrasound``, to which each structure is a question of its own.
"""

from tasks.cardiac_ultrasound import TASK as VIEWS
from tasks.cardiac_ultrasound.example import augment, place_masks, read_example, read_masks
from tasks.codes import Code
from tasks.left_heart.structures import EXCLUSIVE, STRUCTURES
from tasks.task import Task

TASK = Task(
    name="left_heart",
    question=VIEWS.question,
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
    exclusive=EXCLUSIVE,
)

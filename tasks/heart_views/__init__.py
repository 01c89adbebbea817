"""Which of four standard views of the heart: echocardiography. ``labels.md`` says what the label means.

The apical views are those of ``cardiac_ultrasound``, which asks for no others.
"""

from tasks.answers import Classes
from tasks.cardiac_ultrasound.example import augment, read_example
from tasks.codes import Code
from tasks.task import Task

FOUR_CHAMBER = Code("SCT", "399214001", "Apical four chamber")
TASK = Task(
    name="heart_views",
    question="Which of four standard views of the heart does this ultrasound image show?",
    classes=("another_view", "apical_four_chamber"),
    finding=FOUR_CHAMBER,
    procedure=Code("SCT", "40701008", "Echocardiography"),
    example_shape=(1, 128, 128),
    example_version=1,
    read_example=read_example,
    augment=augment,
    answer=Classes(
        names=("parasternal_long_axis", "parasternal_short_axis", "apical_two_chamber", "apical_four_chamber"),
        event=("apical_four_chamber",),
        codes=(
            Code("SCT", "399139001", "Parasternal long axis"),
            Code("SCT", "399306005", "Parasternal short axis"),
            Code("SCT", "399232001", "Apical two chamber"),
            FOUR_CHAMBER,
        ),
    ),
)

"""Low-grade or high-grade: a glioma on brain MR. ``labels.md`` says what the label means."""

from tasks.brain_mr.example import SHAPE, SPACING_MM, augment, place_masks, read_example, read_masks
from tasks.brain_mr.sequences import SEQUENCES
from tasks.brain_mr.structures import STRUCTURES
from tasks.codes import Code
from tasks.task import Task

TASK = Task(
    name="brain_mr",
    question="Is the glioma on this brain MR of high grade?",
    classes=("low_grade", "high_grade"),
    finding=Code("SCT", "772292003", "High grade glioma"),
    procedure=Code("SCT", "816077007", "Magnetic resonance imaging of brain"),
    example_shape=(len(SEQUENCES), *SHAPE),
    example_version=1,
    read_example=read_example,
    structures=STRUCTURES,
    read_masks=read_masks,
    place_masks=place_masks,
    sequences=SEQUENCES,
    example_spacing_mm=SPACING_MM,
    augment=augment,
)

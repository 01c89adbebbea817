"""Benign or malignant: a nodule on chest CT. ``labels.md`` says what the label means."""

from tasks.codes import Code
from tasks.lung_ct.example import SHAPE, SPACING_MM, augment, place_masks, read_example, read_masks
from tasks.lung_ct.structures import STRUCTURES
from tasks.task import Sequence, Task

TASK = Task(
    name="lung_ct",
    question="Is the outlined lung nodule on this chest CT malignant?",
    classes=("benign", "malignant"),
    finding=Code("SCT", "363358000", "Malignant tumor of lung"),
    procedure=Code("SCT", "169069000", "Computed tomography of chest"),
    example_shape=(1, *SHAPE),
    example_version=1,
    read_example=read_example,
    structures=STRUCTURES,
    read_masks=read_masks,
    place_masks=place_masks,
    # Any thin series will do, and the longest is the thinnest; no scout view, which is one image, no reformat.
    sequences=(
        Sequence("CT", r"^(?!.*(scout|topogram|localizer|surview|dose|mip|minip|coronal|sagittal|\bcor\b|\bsag\b))"),
    ),
    example_spacing_mm=SPACING_MM,
    augment=augment,
)

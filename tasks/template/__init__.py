"""CHANGE: the question in a few words. ``labels.md`` says what the label means."""

from tasks.codes import Code
from tasks.task import Task
from tasks.template.example import SIDE, read_example

TASK = Task(
    name="template",
    question="Does this image show the finding?",  # CHANGE, here, in labels.md and in tasks/README.md
    classes=("absent", "present"),  # CHANGE, here, in labels.md and tasks/README.md
    finding=Code("SCT", "404684003", "Clinical finding"),  # CHANGE to what the positive class is called
    procedure=Code("SCT", "363679005", "Imaging"),  # CHANGE to the examination
    example_shape=(1, SIDE, SIDE),
    example_version=1,  # raise it whenever read_example computes something else
    read_example=read_example,
    frames_per_clip=1,  # raise it where a file of many frames is worth more than its middle
)

"""Healthy lung or pneumonia: transthoracic ultrasound. ``labels.md`` says what the label means."""

from tasks.codes import Code
from tasks.lung_ultrasound.example import augment, read_example
from tasks.task import Finding, Task

TASK = Task(
    name="lung_ultrasound",
    question="Does this lung ultrasound image come from a lung with pneumonia?",
    classes=("healthy", "pathological"),
    finding=Code("SCT", "19829001", "Disorder of lung"),
    procedure=Code("SCT", "25850001", "Ultrasonography of thorax"),
    example_shape=(1, 128, 128),
    example_version=1,
    read_example=read_example,
    frames_per_clip=6,
    # What readers note has no code of its own in SNOMED CT for the artefacts; the scheme 99CONSILIUM is this project's.
    secondary_findings=(
        Finding("b_lines", Code("99CONSILIUM", "B_LINES", "Three or more B-lines in a view")),
        Finding("consolidation", Code("SCT", "95436008", "Lung consolidation")),
        Finding("effusion", Code("SCT", "60046008", "Pleural effusion")),
        Finding("a_lines", Code("99CONSILIUM", "A_LINES", "A-lines")),
        Finding("pleural_irregularity", Code("99CONSILIUM", "PLEURAL_IRREG", "Irregular pleural line")),
    ),
    augment=augment,
)

"""COVID-19 pneumonia or something else, and what is seen: frontal chest X-ray. ``labels.md`` says what that means."""

from tasks.chest_xray.example import augment, read_example
from tasks.codes import Code
from tasks.task import Finding, Task

TASK = Task(
    name="chest_xray",
    question="Does this chest X-ray come from a patient with COVID-19 pneumonia?",
    classes=("other", "covid_pneumonia"),
    finding=Code("SCT", "840539006", "COVID-19"),
    procedure=Code("SCT", "399208008", "Plain chest X-ray"),
    example_shape=(1, 128, 128),
    example_version=1,
    read_example=read_example,
    secondary_findings=(
        Finding("consolidation", Code("SCT", "95436008", "Lung consolidation")),
        Finding("effusion", Code("SCT", "60046008", "Pleural effusion")),
        Finding("cardiomegaly", Code("SCT", "8186001", "Cardiomegaly")),
        Finding("pneumothorax", Code("SCT", "36118008", "Pneumothorax")),
    ),
    augment=augment,
)

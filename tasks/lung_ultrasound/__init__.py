"""Healthy lung or pneumonia: transthoracic ultrasound. ``labels.md`` says what the label means."""

from tasks.lung_ultrasound.example import read_example
from tasks.lung_ultrasound.phantom import draw
from tasks.task import Code, Task

TASK = Task(
    name="lung_ultrasound",
    question="Does this lung ultrasound image come from a lung with pneumonia?",
    classes=("healthy", "pathological"),
    finding=Code("SCT", "19829001", "Disorder of lung"),
    procedure=Code("SCT", "25850001", "Ultrasonography of thorax"),
    example_shape=(1, 128, 128),
    example_version=1,
    read_example=read_example,
    draw_phantom=draw,
    frames_per_clip=6,
)

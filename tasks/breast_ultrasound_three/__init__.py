"""No lesion, a benign or a malignant one: B-mode ultrasound of the breast. ``labels.md`` says what the label means.

The pictures are those of ``breast_ultrasound``, which asks for malignancy of lesions alone.
"""

from tasks.answers import Classes
from tasks.breast_ultrasound.example import augment, read_example
from tasks.codes import Code
from tasks.task import Task

MALIGNANT = Code("SCT", "86049000", "Malignant neoplasm, primary")
TASK = Task(
    name="breast_ultrasound_three",
    question="Does this breast ultrasound image show no lesion, a benign or a malignant one?",
    classes=("not_malignant", "malignant"),
    finding=MALIGNANT,
    procedure=Code("SCT", "47079000", "Ultrasonography of breast"),
    example_shape=(1, 128, 128),
    example_version=1,
    read_example=read_example,
    augment=augment,
    answer=Classes(
        names=("normal", "benign", "malignant"),
        event=("malignant",),
        codes=(Code("SCT", "17621005", "Normal"), Code("SCT", "30807003", "Benign"), MALIGNANT),
    ),
)

"""How much of its blood the left ventricle ejects: apical echocardiography. ``labels.md`` says how it is measured.

A clip is looked at twice, at the end of diastole and of systole: each is a channel of the input, in this order.
"""

from tasks.answers import Measure
from tasks.cardiac_ultrasound.example import augment
from tasks.codes import Code
from tasks.ejection_fraction.example import MOMENTS, read_example
from tasks.task import Task

TASK = Task(
    name="ejection_fraction",
    question="Which share of its blood does the left ventricle eject on these views from the apex?",
    classes=("preserved", "reduced"),
    finding=Code("SCT", "371862006", "Depression of left ventricular systolic function"),
    procedure=Code("SCT", "40701008", "Echocardiography"),
    example_shape=(len(MOMENTS), 128, 128),
    example_version=1,
    read_example=read_example,
    moments=MOMENTS,
    augment=augment,
    answer=Measure(
        code=Code("LN", "18043-0", "Left Ventricular Ejection Fraction by US"),
        unit=Code("UCUM", "%", "percent"),
        low=10.0,
        high=80.0,
        event_below=50.0,
        units=(("1", 100.0),),
    ),
)

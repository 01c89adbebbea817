"""How large the heart is: frontal chest X-ray. ``labels.md`` says how it is measured.

The pictures are those of ``chest_xray``, without what would change the ratio at random.
"""

from tasks.answers import Grade, Measure
from tasks.chest_xray.example import read_example
from tasks.codes import Code
from tasks.task import Finding, Task

CARDIOMEGALY = Code("SCT", "8186001", "Cardiomegaly")
TASK = Task(
    name="heart_size",
    question="How wide is the heart on this chest X-ray, as a share of the chest?",
    classes=("not_enlarged", "enlarged"),
    finding=CARDIOMEGALY,
    procedure=Code("SCT", "399208008", "Plain chest X-ray"),
    example_shape=(1, 128, 128),
    example_version=1,
    read_example=read_example,
    answer=Measure(
        code=Code("99CONSILIUM", "CTR", "Cardiothoracic ratio"),
        unit=Code("UCUM", "%", "percent"),
        low=30.0,
        high=70.0,
        event_above=50.0,
        units=(("1", 100.0),),
    ),
    secondary_findings=(
        Finding(
            "enlargement",
            CARDIOMEGALY,
            Grade(
                names=("none", "mild", "moderate", "severe"),
                event="moderate",
                codes=(
                    Code("SCT", "260413007", "None"),
                    Code("SCT", "255604002", "Mild"),
                    Code("SCT", "6736007", "Moderate"),
                    Code("SCT", "24484000", "Severe"),
                ),
            ),
        ),
    ),
)

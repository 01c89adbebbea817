"""How old the bones of a child's hand are: X-ray of the left hand. ``labels.md`` says how it is read.

Pictures become inputs as those of ``chest_xray`` do.
"""

from tasks.answers import Measure
from tasks.chest_xray.example import augment, read_example
from tasks.codes import Code
from tasks.task import Task

TASK = Task(
    name="hand_xray",
    question="Which bone age does this X-ray of a child's hand show?",
    classes=("growing", "nearly_grown"),
    finding=Code("99CONSILIUM", "NEARLYGROWN", "Little skeletal growth left"),
    procedure=Code("SCT", "168619004", "Plain X-ray of hand"),
    example_shape=(1, 128, 128),
    example_version=1,
    read_example=read_example,
    augment=augment,
    answer=Measure(
        code=Code("99CONSILIUM", "BONEAGE", "Bone age"),
        unit=Code("UCUM", "mo", "month"),
        low=6.0,
        high=222.0,
        event_above=168.0,
        units=(("a", 12.0),),
    ),
)

"""What is outlined in an apical view: the three structures of CAMUS, which exclude each other, and what lies within the
epicardium, by which CAMUS evaluates the muscle (Leclerc et al., IEEE Trans Med Imaging 38:2198, 2019).

Tested in ``tests/tasks/phantoms/left_heart/test_phantom.py``.
"""

from tasks.cardiac_ultrasound.structures import STRUCTURES as APART
from tasks.codes import Code
from tasks.task import Structure

STRUCTURES = (*APART, Structure("within_epicardium", Code("SCT", "6871001", "Epicardium")))
EXCLUSIVE = (tuple(structure.name for structure in APART),)

"""What is outlined on a breast ultrasound image.

Tested in ``tests/tasks/phantoms/breast_ultrasound/test_phantom.py``.
"""

from tasks.codes import Code
from tasks.task import ABNORMALITY, Structure

STRUCTURES = (Structure("lesion", Code("SCT", "52988006", "Lesion"), ABNORMALITY),)

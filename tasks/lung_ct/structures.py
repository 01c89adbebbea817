"""What is outlined on a chest CT. Codes as in the DICOM segmentations of LIDC-IDRI (Fedorov et al., Med Phys 47:5953,
2020).

Tested in ``tests/tasks/phantoms/lung_ct/test_phantom.py``.
"""

from tasks.codes import Code
from tasks.task import ABNORMALITY, Structure

STRUCTURES = (Structure("nodule", Code("SCT", "27925004", "Nodule"), ABNORMALITY),)

"""What is outlined on a brain MR: the three nested regions by which BraTS evaluates (Menze et al., IEEE Trans Med
Imaging 34:1993, 2015), with codes of the context group of lesions for segmentation (PS3.16 CID 7159).

Tested in ``tests/tasks/brain_mr/test_example.py``.
"""

from tasks.codes import Code
from tasks.task import ABNORMALITY, Structure

STRUCTURES = (
    # All that is abnormal, with the oedema around the tumour.
    Structure("whole_tumour", Code("SCT", "52988006", "Lesion"), ABNORMALITY),
    # What would be resected: enhancing, solid and necrotic parts.
    Structure("tumour_core", Code("SCT", "108369006", "Neoplasm"), ABNORMALITY),
    Structure("enhancing_tumour", Code("NCIt", "C113842", "Enhancing Lesion"), ABNORMALITY),
)

"""What is outlined in an apical view, as in CAMUS: the cavity of the left ventricle, its muscle, and the left atrium's
cavity.

Tested in ``tests/tasks/phantoms/cardiac_ultrasound/test_phantom.py``.
"""

from tasks.codes import Code
from tasks.task import Structure

STRUCTURES = (
    Structure("left_ventricle", Code("SCT", "87878005", "Left ventricle")),
    Structure("myocardium", Code("SCT", "49848007", "Left Ventricle Myocardium")),
    Structure("left_atrium", Code("SCT", "82471001", "Left atrium")),
)

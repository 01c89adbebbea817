"""What each archive of MedMNIST holds: its question, the names of its labels in the order of their numbers, how many.

Names and numbers are those of the set's own table (J. Yang et al., MedMNIST v2, Scientific Data 10:41, 2023), in words
that a labels file can have. Which answers are the event of a question is this project's choice: by it models are
selected and compared.

Tested in ``tests/tasks/medmnist/test_tasks.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LabelledSet:
    """One set of images.

    Attributes:
        question: in one sentence.
        labels: names of the labels, from number 0 on; of a set with several labels an image, its columns.
        event: those labels that are the event; of a set with two or with several labels an image there is no choice.
        kind: ``findings`` has several labels an image, each yes or no.
        colours: 1 or 3.
        volumes: of 28 x 28 x 28 voxels instead of images of 28 x 28 pixels.
    """

    question: str
    labels: tuple[str, ...]
    event: tuple[str, ...] = ()
    kind: Literal["binary", "classes", "grade", "findings"] = "classes"
    colours: int = 1
    volumes: bool = False


_ORGANS = (
    *("bladder", "femur_left", "femur_right", "heart", "kidney_left", "kidney_right"),
    *("liver", "lung_left", "lung_right", "pancreas", "spleen"),
)
_ORGANS_3D = (
    *("liver", "kidney_right", "kidney_left", "femur_right", "femur_left", "bladder"),
    *("heart", "lung_right", "lung_left", "spleen", "pancreas"),
)
ARCHIVES = {
    "adrenalmnist3d": LabelledSet(
        "Is this adrenal gland hyperplastic?", ("normal", "hyperplasia"), kind="binary", volumes=True
    ),
    "bloodmnist": LabelledSet(
        "Which kind of blood cell does this microscope image show?",
        (
            *("basophil", "eosinophil", "erythroblast", "immature_granulocytes"),
            *("lymphocyte", "monocyte", "neutrophil", "platelet"),
        ),
        ("immature_granulocytes",),
        colours=3,
    ),
    "breastmnist": LabelledSet(
        "Is this breast ultrasound image free of a malignant lesion?", ("malignant", "normal_or_benign"), kind="binary"
    ),
    "chestmnist": LabelledSet(
        "Does this chest X-ray have any of fourteen findings?",
        (
            *("atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia"),
            *("pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia"),
        ),
        kind="findings",
    ),
    "dermamnist": LabelledSet(
        "Which of seven kinds of skin lesion does this dermatoscopic image show?",
        (
            *("actinic_keratoses_and_intraepithelial_carcinoma", "basal_cell_carcinoma"),
            *("benign_keratosis_like_lesions", "dermatofibroma", "melanoma", "melanocytic_nevi", "vascular_lesions"),
        ),
        ("actinic_keratoses_and_intraepithelial_carcinoma", "basal_cell_carcinoma", "melanoma"),
        colours=3,
    ),
    "fracturemnist3d": LabelledSet(
        "Of which kind is the rib fracture on this CT?",
        ("buckle_rib_fracture", "nondisplaced_rib_fracture", "displaced_rib_fracture"),
        ("displaced_rib_fracture",),
        volumes=True,
    ),
    "nodulemnist3d": LabelledSet(
        "Is the lung nodule on this CT malignant?", ("benign", "malignant"), kind="binary", volumes=True
    ),
    "octmnist": LabelledSet(
        "Which retinal disease does this optical coherence tomography show?",
        ("choroidal_neovascularization", "diabetic_macular_edema", "drusen", "normal"),
        ("choroidal_neovascularization", "diabetic_macular_edema", "drusen"),
    ),
    "organamnist": LabelledSet("Which organ does this axial slice of a CT show?", _ORGANS, ("liver",)),
    "organcmnist": LabelledSet("Which organ does this coronal slice of a CT show?", _ORGANS, ("liver",)),
    "organsmnist": LabelledSet("Which organ does this sagittal slice of a CT show?", _ORGANS, ("liver",)),
    "organmnist3d": LabelledSet("Which organ does this piece of a CT show?", _ORGANS_3D, ("liver",), volumes=True),
    "pathmnist": LabelledSet(
        "Which of nine tissues does this histological image show?",
        (
            *("adipose", "background", "debris", "lymphocytes", "mucus", "smooth_muscle", "normal_colon_mucosa"),
            *("cancer_associated_stroma", "colorectal_adenocarcinoma_epithelium"),
        ),
        ("colorectal_adenocarcinoma_epithelium",),
        colours=3,
    ),
    "pneumoniamnist": LabelledSet(
        "Does this chest X-ray of a child show pneumonia?", ("normal", "pneumonia"), kind="binary"
    ),
    "retinamnist": LabelledSet(
        "How severe is the diabetic retinopathy on this picture of the retina?",
        ("none", "mild", "moderate", "severe", "proliferative"),
        ("moderate",),
        kind="grade",
        colours=3,
    ),
    "synapsemnist3d": LabelledSet(
        "Is this synapse excitatory?", ("inhibitory_synapse", "excitatory_synapse"), kind="binary", volumes=True
    ),
    "tissuemnist": LabelledSet(
        "Which of eight kinds of cell of the kidney does this microscope image show?",
        (
            *("collecting_duct_or_connecting_tubule", "distal_convoluted_tubule", "glomerular_endothelial_cells"),
            *("interstitial_endothelial_cells", "leukocytes", "podocytes"),
            *("proximal_tubule_segments", "thick_ascending_limb"),
        ),
        ("leukocytes",),
    ),
    "vesselmnist3d": LabelledSet(
        "Does this vessel of the brain have an aneurysm?", ("vessel", "aneurysm"), kind="binary", volumes=True
    ),
}

"""What a hospital can do about an image that is not used, for every word by which such images are counted."""

from __future__ import annotations

from tasks import contract as contracts
from tasks.task import Task

RULE = "RULE:"
"""Before a rule of the contract among the words of an ingest."""
_NO_SERIES, _SERIES = "NO_SERIES_OF_", "SERIES_"

_FILES = {
    "UNREADABLE_FILE": "The file system does not give it out: look at its rights and at the share it lies on",
    "NOT_DICOM": "Most folders hold some; if there are many, is the folder the right one?",
    "NO_TRANSFER_SYNTAX": "Its header does not say how it is encoded: export it from the archive once more",
    "UNSUPPORTED_TRANSFER_SYNTAX": "A video or another encoding that cannot be read: export it uncompressed",
    "NO_PIXEL_DATA": "Reports and presentation states have no picture; nothing is to be done",
    "IMPLAUSIBLE_HEADER": "Attributes are missing or contradict each other: ask who made the file",
    "UNSUPPORTED_PHOTOMETRIC": "Colours that cannot be read: export it as MONOCHROME2 or RGB",
    "NO_SUCH_FRAME": "It has fewer frames than its header says: export it from the archive once more",
    "TOO_LARGE": "Larger than anything that is read; is it what it should be?",
    "TRUNCATED": "It ends too early: copy it once more and compare the sizes",
    "LENGTH_MISMATCH": "It holds other pixels than its header says: export it from the archive once more",
    "FRAGMENTS_MISMATCH": "Its frames cannot be told apart: export it uncompressed",
    "CODESTREAM_MISMATCH": "Header and compressed image contradict each other: export it uncompressed",
    "COLOUR_CONFLICT": "Header and compressed image name different colours: export it uncompressed",
    "DECODE_FAILED": "It is damaged: copy or export it once more",
    "VALUES_OUT_OF_RANGE": "Values that its header does not allow: ask who made the file",
    "CONSTANT_IMAGE": "Every pixel is the same: is it an empty export?",
    "NOT_FINITE": "Some values are no numbers: convert it once more",
    "TIME_LIMIT": "Reading took too long; it is tried again at the next ingest, when the machine is quieter",
    "MEMORY_LIMIT": "Reading took too much memory; it is tried again at the next ingest",
    "DECODER_DIED": "Reading it crashed a process of its own; it is tried again. If it does so again, send us the kind "
    "of device, never the file",
    "NOT_NIFTI": "No NIfTI file, or damaged: convert it once more",
    "NOT_A_VOLUME": "Not three axes of numbers: the task reads one volume a file",
    "NO_ORIENTATION": "The header does not say how it lies in the patient: convert it once more, with qform or sform",
    "NOT_A_SCAN": "The task reads scans: name a folder of DICOM series, an archive or a BIDS folder as the source",
    "FILE_ABSENT": "A link without a file: fetch it with `datalad get` or `git annex get`",
}
_NAMES = {
    "NO_PATIENT_ID": "Whose it is is not said, so that no patient could be protected: export it with PatientID",
    "NO_UID": "It has no SOPInstanceUID or StudyInstanceUID, which a report must name: export it once more",
    "INVALID_UID": "Its SOPInstanceUID is none: mend it in the archive",
    "DUPLICATE_INSTANCE": "It is there twice; one is used and nothing is to be done",
    "STUDY_OF_SEVERAL_PATIENTS": "One StudyInstanceUID with several PatientIDs: mend it in the archive",
    "WITHDRAWN": "The patient is on the list that `withdrawals` names; nothing is to be done",
}
_LABELS = {
    "IMAGE_WITHOUT_LABEL": "Nobody has labelled it: label it, or narrow the source",
    "LABEL_WITHOUT_IMAGE": "The labels name what is not here: compare the numbers there with those of the images",
    "PARTICIPANT_WITHOUT_LABEL": "participants.tsv has no label in this row: fill it in",
    "DUPLICATE_LABEL_ROW": "The same label twice; one is used and nothing is to be done",
    "CONTRADICTING_LABEL_ROWS": "Two labels for the same: decide which one holds and delete the other",
    "GROUP_WITHOUT_LABEL": "A measurement group does not say what `annotations` asks for: compare its codes",
    "GROUP_WITHOUT_IMAGE": "A measurement group names no image: it can label none",
    "REPORT_UNREADABLE": "The structured report is damaged: export it once more",
    "REPORT_OF_OTHER_TEMPLATE": "Not of TID 1500: name another kind of `annotations`",
    "REPORT_OF_CONSILIUM": "A model's report, from which no model may learn; nothing is to be done",
}
_OUTLINES = {
    "NO_OUTLINE": "The task reads images with outlines only: put a DICOM segmentation beside it",
    "SEGMENTATION_UNREADABLE": "The segmentation is damaged: export it once more",
    "SEGMENTATION_OF_CONSILIUM": "A model's outlines, from which no model may learn; nothing is to be done",
    "SEGMENTATION_INCOMPLETE": "It lacks a segment that the task outlines: add it, empty where nothing was found",
    "SEGMENTATION_OF_OTHER_SIZE": "It has other rows and columns than its image: outline the image itself",
    "SEGMENTATION_OFF_GRID": "A frame lies between the slices: resample it onto the series that it was drawn on",
    "SEGMENTATION_ON_TWO_SERIES": "It fits two series, and one is taken: name the images it was derived from",
    "SEGMENTED_WITHOUT_FINDING": "Its segments have none of the codes that `annotations` names: compare them",
    "NOT_A_MASK": "No PNG or NIfTI file: `annotations.path` should hold masks only",
    "MASK_UNREADABLE": "The mask is damaged, or no plain grey picture: save it as PNG once more",
    "MASK_TOO_SMALL": "So few pixels are taken for a slip of the pen; outline it anew or lower `min_pixels`",
    "MASK_INCOMPLETE": "Masks of some structures only: add an empty one where nothing was found",
    "MASK_OF_OTHER_SIZE": "Other rows and columns than its image: save it in the image's own size",
    "MASK_OF_CLIP": "It does not say of which frame it is: list the frame as a still of its own",
}
_STACKS = {
    "NO_PLANE": "The files do not say where the slices lie: export the series itself, not pictures of it",
    "TOO_FEW_SLICES": "Too few for a volume: is it a localizer?",
    "DUPLICATE_POSITION": "Several images of one place that nothing tells apart: export phases as series of their own",
    "SLICES_MISSING": "There are holes: fetch the whole series from the archive",
    "UNEVEN_SPACING": "Slices are unevenly spaced: export the reconstruction that is evenly spaced",
    "MIXED_UNITS": "Slices of different units in one series: export each in a series of its own",
}
_ARCHIVE = {
    "SERIES_OF_OTHER_BODY_PART": "Outside of `scope.body_parts`; widen it if it should be inside",
    "SERIES_OF_UNKNOWN_BODY_PART": "BodyPartExamined is empty: `scope.body_part_unknown: keep` takes such series",
    "TRANSCODED": "The archive changes the encoding on the way: let it send images as they are stored",
    "ARCHIVE_FAILED": "The archive does not give it: look for its number in the archive's log",
    "GONE_FROM_ARCHIVE": "It was deleted or moved meanwhile; the next ingest sees",
    "BROKEN_IN_ARCHIVE": "What the archive holds is no whole DICOM file: mend it there",
}
_PREDICTION = {
    "NOT_IN_CATALOG": "The catalog does not know it: run `consilium-site ingest`, or name its folder with --path",
    "CHANGED_SINCE_INGEST": "The file is another one than the catalog has read: run `consilium-site ingest`",
    "NOT_USABLE": "The last ingest could not use it and does not say why: run `consilium-site ingest`",
}
WORDS: dict[str, str] = {
    **_FILES, **_NAMES, **_LABELS, **_OUTLINES, **_ARCHIVE, **_PREDICTION,
    **_STACKS, **{_SERIES + word: remedy for word, remedy in _STACKS.items()},
    _SERIES + "TOO_LARGE": _FILES["TOO_LARGE"],
    _SERIES + "IN_OTHER_SPACE": "Its FrameOfReferenceUID is not the first sequence's: register it and export it anew",
}  # fmt: skip
"""Every word but those that name a rule of the contract or a sequence of the task."""


def remedy_of(task: Task, word: str) -> str:
    """What to do about images that are counted by this word: by a rule of the contract, with ``RULE:`` before it or
    not, or by a word of the readers."""
    rules = {rule.id: rule.remedy for rule in contracts.of_task(task.name).rules}
    known = rules | WORDS
    if word.startswith(_NO_SERIES):
        return "No SeriesDescription fits this sequence (`tasks/NAME/__init__.py` has the patterns): rename or fetch it"
    return known.get(word.removeprefix(RULE), "")

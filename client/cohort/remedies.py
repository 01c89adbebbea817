"""How to fix images that are not used: a remedy for every reason by which they are counted."""

from __future__ import annotations

from client.sources.record import NOTE, OTHER_SERIES
from tasks import contract as contracts
from tasks.machine.language import say
from tasks.task import Task

RULE = "RULE:"
"""Prefix of a contract rule among the reasons of an ingest."""
_NO_SERIES, _SERIES = "NO_SERIES_OF_", "SERIES_"

_FILES = {
    "UNREADABLE_FILE": "Cannot be opened: check permissions and the network share",
    "UNREADABLE_FOLDER": "A folder that this user may not read: check its permissions; what lies in it is not counted",
    "LINKED_FOLDER": "A link to a folder is not followed: name that folder as a source, or mount it here",
    "NOT_A_FILE": "A pipe or a device, not a file: nothing to do",
    "PACKED_FILE": "An archive or a compressed file: unpack it, nothing is unpacked here",
    "NOT_DICOM": "Not a DICOM file. A few are normal; if there are many, check that the folder is right",
    "NO_TRANSFER_SYNTAX": "The header lacks the transfer syntax: export the file again",
    "UNSUPPORTED_TRANSFER_SYNTAX": "A video, or another encoding that cannot be read: export it uncompressed",
    "NO_PIXEL_DATA": "No image in the file, as in reports and presentation states: nothing to do",
    "IMPLAUSIBLE_HEADER": "Header attributes are missing or contradictory: ask whoever created the file",
    "UNSUPPORTED_PHOTOMETRIC": "Unsupported colours: export it as MONOCHROME2 or RGB",
    "NO_SUCH_FRAME": "Fewer frames than the header declares: export the file again",
    "TOO_FEW_FRAMES": "The task looks at several frames together: send clips from the first moment to the last",
    "WRONG_COLOURS": "The task's images have another number of colours: take the archive that the study names",
    "TOO_LARGE": "Larger than the size limit: check that it is the right file",
    "TRUNCATED": "The file is truncated: copy it again and compare the sizes",
    "LENGTH_MISMATCH": "More pixel data than the header declares: export the file again",
    "FRAGMENTS_MISMATCH": "The fragments cannot be assigned to frames: export it uncompressed",
    "CODESTREAM_MISMATCH": "Header and compressed image disagree: export it uncompressed",
    "COLOUR_CONFLICT": "Header and compressed image disagree on the colour space: export it uncompressed",
    "DECODE_FAILED": "The image is damaged: copy or export it again",
    "VALUES_OUT_OF_RANGE": "Pixel values outside the range in the header: ask whoever created the file",
    "CONSTANT_IMAGE": "All pixels have the same value: check whether the export was empty",
    "NOT_FINITE": "Contains NaN or infinite values: convert it again",
    "CONSTANT_EXAMPLE": "Nothing can be seen where the task looks: check its series, positions and outlines",
    "VALUES_NOT_IN_RANGE": "Values outside 0 to 1 after the transform: report the device model to us, never the file",
    "NOT_HOUNSFIELD": "No air in it, or impossible values, so RescaleIntercept is wrong: export it again",
    "TIME_LIMIT": "Reading exceeded the time limit; the next ingest tries again, ideally when the machine is less busy",
    "MEMORY_LIMIT": "Reading exceeded the memory limit; the next ingest tries again",
    "DECODER_DIED": "The decoder crashed; the next ingest tries again. If it happens again, report the device model to "
    "us, never the file",
    "NOT_NIFTI": "Not a NIfTI file, or damaged: convert it again",
    "NOT_A_VOLUME": "Not a three-dimensional volume: the task reads one volume per file",
    "NO_ORIENTATION": "The header lacks the orientation: convert it again, with qform or sform",
    "NOT_A_SCAN": "The task reads scans: use a folder of DICOM series, an archive or a BIDS folder as the source",
    "FILE_ABSENT": "Listed or linked, but not there: fetch it (`datalad get`, `git annex get`), or correct the list",
}
_NAMES = {
    "NO_PATIENT_ID": "No PatientID, so the patient cannot be protected: export it with PatientID",
    "NO_UID": "No SOPInstanceUID or StudyInstanceUID, which reports need: export it again",
    "INVALID_UID": "Invalid SOPInstanceUID: correct it in the PACS",
    "DUPLICATE_INSTANCE": "Duplicate; one copy is used: nothing to do",
    "STUDY_OF_SEVERAL_PATIENTS": "One StudyInstanceUID with several PatientIDs: correct it in the PACS",
    "INSTANCE_OF_SEVERAL_PATIENTS": "One SOPInstanceUID with several PatientIDs: correct it in the PACS",
    "IDENTITY_CONFLICT": "Perhaps two patient numbers of one person: run `consilium-site identities`",
    "WITHDRAWN": "The patient is on the `withdrawals` list: nothing to do",
}
_LABELS = {
    "IMAGE_WITHOUT_LABEL": "No label: label it, or narrow the source",
    "LABEL_WITHOUT_IMAGE": "A label without an image: compare the identifiers in the labels with those in the images",
    "PARTICIPANT_WITHOUT_LABEL": "No label in this row of participants.tsv: fill it in",
    "ROW_WITHOUT_LABEL": "A row of the labels file has no label: fill it in, or nothing to do",
    "DUPLICATE_LABEL_ROW": "The same label twice; one is used: nothing to do",
    "LABEL_LEFT_OUT": "Its label is one of `left_out_labels`: nothing to do",
    "HELD_OUT": "The published split keeps this patient for a test of the finished model: nothing to do",
    "CONTRADICTING_LABEL_ROWS": "Contradictory labels: keep the right one and delete the other",
    "CONTRADICTING_FINDINGS": "A further finding is told in two ways and counts as not known: keep the right one",
    "GROUP_WITHOUT_LABEL": "A measurement group has none of the codes in `annotations`: compare the codes",
    "GROUP_WITHOUT_IMAGE": "A measurement group refers to no image, so it labels none",
    "GROUP_CONTRADICTS_ITSELF": "A measurement group answers one question twice, and differently: correct the report",
    "MEASUREMENT_OF_OTHER_UNIT": "A value in a unit that the task does not know: convert it, in a labels file",
    "MEASUREMENT_OUT_OF_RANGE": "A value beyond what the task declares: see whether it or its unit is mistaken",
    "REPORT_UNREADABLE": "The structured report is damaged: export it again",
    "REPORT_OF_OTHER_TEMPLATE": "Not a TID 1500 report: use another kind of `annotations`",
    "FHIR_UNREADABLE": "Not a FHIR resource as JSON, or not UTF-8: export it again",
    "REPORT_NOT_FINAL": "Preliminary, cancelled or entered in error: nothing to do",
    "REPORT_WITHOUT_LABEL": "None of the codes in `annotations`, or both kinds: compare the codes",
    "REPORT_OF_OTHER_UNIT": "A quantity in another unit than `annotations.unit`: convert it, or leave it",
    "REPORT_WITHOUT_SUBJECT": "Its study or patient is not among the files, or has no such identifier: export it too",
    "PERSON_WITHOUT_IMAGE": "Has a concept, but no image in the tables: nothing to do",
    "REPORT_OF_CONSILIUM": "A report made by a model, never used as a label: nothing to do",
}
_OUTLINES = {
    "NO_OUTLINE": "The task needs outlined images: add a DICOM segmentation next to it",
    "RT_STRUCTURE_SET": "Outlines as contours (RTSTRUCT) are not read: convert them to a DICOM segmentation (SEG)",
    "SEGMENTATION_ELSEWHERE": "Drawn outside the series that is read, or in another FrameOfReferenceUID",
    "MASK_OUTSIDE_IMAGE": "What is outlined was not imaged: check that the outlines belong to this series",
    "SEGMENTATION_UNREADABLE": "The segmentation is damaged: export it again",
    "SEGMENTATION_OF_CONSILIUM": "Outlines made by a model, never used as a label: nothing to do",
    "SEGMENTATION_INCOMPLETE": "A segment of the task is missing: add it, empty if nothing was found",
    "SEGMENTATION_OF_OTHER_SIZE": "Rows and columns differ from the image's: outline the original image",
    "SEGMENTATION_OFF_GRID": "A frame lies between slices: resample it onto the series it was drawn on",
    "SEGMENTATION_ON_TWO_SERIES": "Fits two series, and one was chosen: add references to the source images",
    "SEGMENTED_WITHOUT_FINDING": "Its segments have none of the codes in `annotations`: compare the codes",
    "EXCLUSIVE_STRUCTURES_OVERLAP": "Two structures that exclude each other share a place: correct the outlines",
    "EXCLUSIVE_STRUCTURES_ON_TWO_GRIDS": "Structures that exclude each other: outline them on one series",
    "NOT_A_MASK": "Not a PNG or NIfTI file: `annotations.path` should contain masks only",
    "MASK_UNREADABLE": "The mask is damaged or not greyscale: save it as PNG again",
    "MASK_TOO_SMALL": "Fewer than `min_pixels` marked, treated as accidental: outline it again or lower `min_pixels`",
    "MASK_INCOMPLETE": "Masks of some structures are missing: add an empty mask if nothing was found",
    "MASK_OF_OTHER_SIZE": "Rows and columns differ from the image's: save it in the image's size",
    "MASK_OF_VOLUME": "Masks of NIfTI volumes are not read: use DICOM with DICOM segmentations",
    "MASK_OF_CLIP": "The mask does not say which frame it belongs to: list the frame as a separate image",
}
_STACKS = {
    "TOO_FEW_SLICES": "Too few slices for a volume: check whether it is a localizer",
    "DUPLICATE_POSITION": "Several images at one position: export each phase as its own series",
    "SLICES_MISSING": "Slices are missing: fetch the complete series from the archive",
    "NO_POSITION": "No slice says where it lies (ImagePositionPatient, PixelSpacing): export it again",
    "UNEVEN_DIRECTION": "ImageOrientationPatient differs among slices: export a reconstruction",
    "SERIES_IN_PIECES": "Slices differ in matrix or pixel size, or lack a position: export one reconstruction",
    "UNEVEN_SPACING": "Slices are unevenly spaced: export an evenly spaced reconstruction",
    "MIXED_UNITS": "Slices of different units in one series: export each unit as its own series",
}
_ARCHIVE = {
    "SERIES_OF_OTHER_BODY_PART": "Outside `scope.body_parts`: widen it to include this series",
    "SERIES_OF_UNKNOWN_BODY_PART": "BodyPartExamined is empty: `scope.body_part_unknown: keep` includes such series",
    "TRANSCODED": "The archive transcodes images in transfer: have it send them as stored",
    "ARCHIVE_FAILED": "The archive could not send it: search the archive's log for its UID",
    "GONE_FROM_ARCHIVE": "Deleted or moved since; the next ingest will update the catalog",
    "OUTSIDE_HOURS": "Not retrieved, as `hours` of the source says: run the ingest again within those hours",
    "STUDY_WITHOUT_LABEL": "Examinations in scope that nobody has labelled; they are not opened: nothing to do",
    "STUDY_NOT_LISTED": "The archive told of series and listed none: have its administrator look at its search",
    "INSTANCES_NOT_LISTED": "The archive lists fewer images than it counts: have its limit on answers raised",
    "SEGMENTATION_WITHOUT_IMAGE": "Outlines of patients without a labelled image: label the image, or nothing to do",
    "BROKEN_IN_ARCHIVE": "The archive's copy is not a complete DICOM file: repair it in the archive",
}
_PREDICTION = {
    "NOT_IN_CATALOG": "Not in the catalog: run `consilium-site ingest`, or set its folder with --path",
    "CHANGED_SINCE_INGEST": "The file has changed since the last ingest: run `consilium-site ingest`",
    "NOT_USABLE": "The last ingest could not use it, for an unknown reason: run `consilium-site ingest`",
}
_SERIES_READ = {
    "SLICES_LEFT_OUT": "Slices of the same series that fit no volume: see whether the series is complete",
    "SLICES_DIFFER": "ImageType or the like differs among the slices of one volume, which is read whole: nothing to do",
    "SLICES_OF_TWO_THICKNESSES": "SliceThickness differs within an even volume: nothing to do, if that is meant",
    "SLICES_WANDER": "Directions of the slices differ by less than half a voxel and are read as one: nothing to do",
    "GAPS_BETWEEN_SLICES": "Gaps as wide as a slice: see whether every second slice is missing",
    "SPACING_NOT_AS_DECLARED": "SpacingBetweenSlices differs from the positions, which are believed: nothing to do",
    "FEWER_SLICES_THAN_DECLARED": "Fewer slices than the header says: see whether the series is complete",
    "TILTED_GANTRY": "Slices are shifted against each other, which is put right: nothing to do",
    "SENT_TWICE": "Slices that were sent twice are read once: nothing to do",
}
_OTHER_SERIES = {
    "OUTLINED_ELSEWHERE": "A further series, on which nothing is outlined: nothing to do",
    "MORE_WARNINGS": "A further series, of which more rules of the contract warn: nothing to do",
    "FEWER_SLICES": "A further series with fewer slices: nothing to do",
    "THICKER_SLICES": "A further series with thicker slices: nothing to do",
    "JUST_AS_GOOD": "A further series like the one that is read: nothing to do",
}
WORDS: dict[str, str] = {
    **_FILES, **_NAMES, **_LABELS, **_OUTLINES, **_ARCHIVE, **_PREDICTION,
    **_STACKS, **{_SERIES + word: remedy for word, remedy in _STACKS.items()},
    **_SERIES_READ, **_OTHER_SERIES,
    _SERIES + "TOO_LARGE": _FILES["TOO_LARGE"],
    _SERIES + "IN_OTHER_SPACE": "FrameOfReferenceUID differs from the first sequence's: register and export it again",
}  # fmt: skip
"""Every reason except those that name a contract rule or a sequence of the task."""


def remedy_of(task: Task, word: str) -> str:
    """What to do about images counted under this reason, in the language spoken: a contract rule, with or without
    ``RULE:``, or a reader's reason."""
    rules = {rule.id: rule.remedy for rule in contracts.of_task(task.name).rules}
    known = rules | WORDS
    word = word.removeprefix(OTHER_SERIES).removeprefix(NOTE)
    if word.startswith(_NO_SERIES):
        return say(
            "No series is of this sequence by its times or SeriesDescription: see the notes, and set `series_words`"
        )
    return say(known.get(word.removeprefix(RULE), ""))

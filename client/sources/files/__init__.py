"""Images in folders, one file a kind: DICOM, DICOM series as scans, NIfTI, and public sets."""

"""Images in folders, one module per kind: DICOM, DICOM series as scans, NIfTI, and public sets."""

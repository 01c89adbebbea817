"""From the bytes of a DICOM file to the values of one frame, one module per step."""

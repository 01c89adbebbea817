"""From the bytes of a DICOM file to the values of one frame: each file tells one step."""

"""DICOM files as images and volumes, and whether they keep the contract of their task."""

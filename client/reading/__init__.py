"""DICOM files as images and volumes, and whether they meet the contract of their task."""

"""Readers' labels of images: label files, structured reports, segmentations, masks."""

"""What readers said of images: files of labels, structured reports, segmentations, masks."""

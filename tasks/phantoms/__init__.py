"""What the phantoms of all tasks share: a hospital's folder, its DICOM files, smooth random fields."""

"""Where a hospital's images, labels and outlines come from: every kind of source yields the same records."""

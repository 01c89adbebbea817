"""Where a hospital's images, labels and outlines come from: each kind of source gives the same records."""

"""Where a hospital's images come from: one file a kind of source, each giving the same records."""

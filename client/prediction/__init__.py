"""A study's model, come home: run on the hospital's own images, for its own people."""

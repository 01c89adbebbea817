"""Run a study's model on the hospital's own images, for hospital staff."""

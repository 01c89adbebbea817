"""Public encoders, frozen: files in the layouts that people have, read and run without their authors' code."""

"""One task for each archive of MedMNIST, public images of 28 pixels: ``table.py`` has what each holds.

They are for simulated hospitals: no hospital's own images can keep their contract. Their names are the archives' own,
such as ``pathmnist``; there are no phantoms of them. ``labels.md`` says what the labels mean.
"""

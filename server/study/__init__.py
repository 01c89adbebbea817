"""A study on the coordinator's disk: its document, its folder, and the models it is compared with."""

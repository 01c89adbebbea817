"""What runs at the coordinator. Imports ``tasks`` and ``conf``, never ``client``."""

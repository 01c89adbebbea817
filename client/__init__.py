"""What runs inside a hospital. Imports ``tasks`` and ``conf.schema``, never ``server``."""

"""The researcher's configuration: one typed schema, one YAML file a choice."""

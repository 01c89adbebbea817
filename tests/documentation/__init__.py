"""The documentation site: how its pages are gathered, and that every link leads somewhere."""

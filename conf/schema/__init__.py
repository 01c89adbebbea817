"""What a study's configuration may say, one file a group: every setting with its default and what it must keep."""

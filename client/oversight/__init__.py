"""What hospital staff decide: review studies in plain words, approve or revoke them, stop everything."""

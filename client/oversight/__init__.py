"""What the hospital's people decide: a study reviewed in plain words, approved or not, and everything stopped."""

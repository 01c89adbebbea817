"""What a round does with a cohort: private steps, by method, and scores; what a study keeps here between rounds."""

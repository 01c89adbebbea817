"""What a round does with a cohort: private steps, by method, and scores; what a study leaves here in between."""

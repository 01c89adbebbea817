"""What a study found: figures from histograms, what may be said of them, and the model's file."""

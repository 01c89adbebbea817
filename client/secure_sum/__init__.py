"""What a hospital needs to be part of a sum without showing its part: its key, its peers, its pads."""

"""From frames and volumes to the arrays that a network takes: what several tasks share."""

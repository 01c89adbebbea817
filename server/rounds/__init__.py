"""A round: who is asked, how orders get there and answers back, and how the model goes on."""

"""Where hospitals are played: in this process, in workers, or behind a SuperLink."""

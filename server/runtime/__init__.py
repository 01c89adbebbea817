"""Where hospitals run: in this process, in worker processes, or behind a SuperLink."""

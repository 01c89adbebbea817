"""The server on one page, for the coordinator: studies, hospitals, the queue and logs."""

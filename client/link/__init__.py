"""The programs between the server and the hospital's code, and the checklist of how they run."""

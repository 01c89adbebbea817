"""The server as an installation: folder, certificates, reverse proxy, runs, and its checklist."""

"""Papers for those who must sign for the server and for a study's model, from what the server's folder says."""

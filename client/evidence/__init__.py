"""Papers for those who must sign for this hospital's part, from what the installation itself says."""

"""The machine on which either side runs: programs kept alive, processes looked at, files kept whole."""

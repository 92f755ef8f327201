"""Commands of ``splitzoo export``."""

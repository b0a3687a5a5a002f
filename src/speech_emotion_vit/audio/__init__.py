"""Audio files, bytes and arrays become mono samples at the rate a model wants."""

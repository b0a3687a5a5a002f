"""Corpora, how they are split, and their features."""

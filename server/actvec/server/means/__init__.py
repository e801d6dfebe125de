"""Corpus means on the server: their store, their files, and centering by them."""

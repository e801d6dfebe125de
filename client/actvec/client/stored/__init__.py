"""Vectors on disk, read back: one reader of every format that this project writes."""

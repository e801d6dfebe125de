"""Measurements: this engine against what users would run instead, and against the machine's limit.

Every figure is a ratio within one interleaved run, since machines are noisy; no test asserts one.
"""

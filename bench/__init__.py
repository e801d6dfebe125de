"""Measurements: this engine against what a user would run instead, and against the machine's limit.

Every figure is a ratio within one interleaved run, since machines are noisy; none is asserted by a
test.
"""

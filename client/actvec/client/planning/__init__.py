"""Estimates of the time, tokens and dollars that a corpus takes."""

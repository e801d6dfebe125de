"""Verbs that compute something from a folder of vectors."""

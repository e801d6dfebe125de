"""Corpus mean jobs that count each document exactly once, across restarts."""

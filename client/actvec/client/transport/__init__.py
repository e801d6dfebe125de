"""Addresses, channels, connections, and reconnecting."""

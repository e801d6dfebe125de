"""Corpus means on the server: their store, the jobs that make them, and centring by them."""

"""The records users hold: documents, vectors, means and models."""

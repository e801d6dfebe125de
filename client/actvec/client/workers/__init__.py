"""Finding and starting workers."""

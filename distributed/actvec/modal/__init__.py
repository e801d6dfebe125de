"""actvec on Modal: workers behind a tunnel, and batch jobs."""

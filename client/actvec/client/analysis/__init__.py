"""From vectors to findings: similarity, tables, checks, the report."""

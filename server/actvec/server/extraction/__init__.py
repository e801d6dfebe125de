"""Everything between a document and its vector: settings, tokenizing, scheduling."""

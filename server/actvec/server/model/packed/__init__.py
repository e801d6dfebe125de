"""The packed engine's replacements in a model: attention, linear layers, rotary embeddings."""

"""The engines: token ids in, pooled states and sums out; each is checked against transformers."""

"""The model and its tokenizer: hub, weights, hooks, packed attention. Knows no documents."""

"""From text to tokens: the tokenizer and its loading, chat templates, bounds on tokens."""

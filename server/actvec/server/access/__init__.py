"""Access to the server: tokens, TLS, and a refusal to serve everybody by accident."""

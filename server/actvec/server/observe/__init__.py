"""How a server is watched: a line of log a call, metrics, traces. None of it knows a text."""

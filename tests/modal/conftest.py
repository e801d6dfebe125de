"""The models and the in-process server of the server's tests."""

from tests.server.conftest import demo_engine, demo_model, held_engine, neox_directory, serve

__all__ = ["demo_engine", "demo_model", "held_engine", "neox_directory", "serve"]

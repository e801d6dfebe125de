"""Records to and from protobuf messages."""

"""The methods of the contract, and all encoding and decoding of their messages."""

"""The program `actvec-server`: options, start, drain."""

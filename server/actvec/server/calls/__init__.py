"""What every call passes, whatever its method: who may call, how many at a time, who is told."""

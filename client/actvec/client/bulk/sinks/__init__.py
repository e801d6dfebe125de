"""The sinks of a job's vectors: single files, safetensors shards, Parquet."""

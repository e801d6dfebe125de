"""A model in this process that computes shards: documents in, vectors or sums out.

Modal and Ray, the engines that run many workers, use this; it knows neither. No server runs and
nothing is sent: documents go to the engine in packed steps, and the results are stored as `actvec
stream` and a server's corpus mean job store them.
"""

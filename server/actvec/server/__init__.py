"""The server: model, engine, scheduler and gRPC service.

Data flows one way: text, tokens, packed step, pooled vector, bytes. `tokens` turns text into ids,
`scheduler` fills steps from all calls, an engine (`engine` or `lens`) runs a step on the model that
`model` loaded, `service` answers. Importing this package imports none of them.
"""

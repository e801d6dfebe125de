"""The server: model, engine, scheduler and gRPC service.

Data flows one way: text, tokens, packed step, pooled vector, message. `model` loads the weights and
the tokenizer, `engine` computes steps, `extraction` fills them from all calls, `means` and `jobs`
keep corpus means, `rpc` knows gRPC and `service` the contract, `program` starts and stops it all.
Each folder imports only those before it (`tests/test_arrows.py`). Importing this package imports
none of them.
"""

"""gRPC plumbing that knows no model and no mean: endpoint, admission, decoding, statuses."""

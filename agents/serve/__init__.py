"""Serving over the network: oomstore's agent protocol over gRPC, and HTTP."""

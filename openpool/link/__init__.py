"""Bytes between machines: one TLS port that transcoders dial, and the client that dials one.

The pool, the worker and the orchestrator stand-in are all made from these two halves. This folder
knows sockets, HTTP and gRPC framing; it does not know jobs, money or the event log.
"""

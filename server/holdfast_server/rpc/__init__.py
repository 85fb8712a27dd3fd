"""What every service shares about gRPC.

`server.py` builds the server, `handlers.py` is what happens around each call (admission, errors, metrics, log),
`stalls.py` ends calls whose peers do nothing, `status.py` maps errors to statuses, `uploads.py` and `framing.py` are
the two kinds of streams, `probes.py` the HTTP port, `allocator.py` the tuning of malloc.
"""

"""What `make bench` runs: the server against the ceiling of the same machine, in the same run.

`__main__.py` is the command line; `download`, `upload`, `calls`, `lists` and `memory` are the sections, one file each,
and `batches`, `crowd` and `s3` folders. `ceiling.py` is the bare gRPC server that ratios are taken to, `processes.py`
starts it and ours, `traffic.py`, `callers.py` and `streams.py` are the clients, `measure.py` takes turns and compares,
`table.py` prints.
"""

"""BlobStore: keyed and content-addressed blobs.

`address.py` names them, `store.py` is the meaning, `service.py` the wire.
"""

"""The Holdfast server: a storage sidecar over gRPC.

From the outside in: `cli` and `app` start it, each service folder has the meaning (`store.py`) and the translation
(`service.py`), `rpc` is what the services share about gRPC, and `objects` keeps bytes under keys.
"""

from importlib.metadata import version

__version__ = version("holdfast")

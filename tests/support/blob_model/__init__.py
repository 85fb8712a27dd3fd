"""BlobStore as a dictionary: what `blob_store.proto` says, written once more and from its words alone.

Nothing here imports the code under test, only the generated messages: `asked` are the requests, `rules` tell what is
wrong with one by itself, and `dictionary` what may be answered to it.
"""

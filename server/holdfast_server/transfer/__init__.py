"""Objects on their way between stores, and between a store and a foreign tree; no server need run.

`copying.py` takes them from store to store, `flatfs.py` and `shellcade.py` into and out of the trees of those programs
(by `incoming.py` and `outgoing.py`), which `tree.py` reads and writes without ever leaving them. Each yields tasks, one
an object, that tell what became of it (`outcome.py`); `work.py` does them, a few at once, and `report.py` and `bar.py`
tell people. `locations.py` opens what `--from` and `--to` name, and `commands.py` is the command line.
"""

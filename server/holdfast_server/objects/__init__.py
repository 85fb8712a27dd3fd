"""The narrow waist: bytes under keys.

`base.py` says what every backend promises, `body.py` and `reading.py` are the two ways bytes pass through, and each
backend is a file or folder of its own: `memory.py`, `filesystem/`. Wrappers are named for the one thing they add
(`measured.py`); `registry.py` picks the backend that the settings name.
"""

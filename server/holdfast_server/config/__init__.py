"""The settings: flags, then `HOLDFAST_*` variables, then a TOML file, then the defaults here.

This package alone reads the environment (but for `health_command.py`, which has no time for it). `settings.py` puts the
settings together, `sections.py` are those under one name, `s3.py` is the section with rules of its own, `keys.py` finds
its keys, `origins.py` knows where one was given, and `described.py` lists all of them.
"""

from holdfast_server.config.described import Described, describe, unknown_variables
from holdfast_server.config.s3 import S3Settings
from holdfast_server.config.sections import BackendName
from holdfast_server.config.settings import ConfigError, Settings, load, load_file, split_address

__all__ = [
    "BackendName",
    "ConfigError",
    "Described",
    "S3Settings",
    "Settings",
    "describe",
    "load",
    "load_file",
    "split_address",
    "unknown_variables",
]

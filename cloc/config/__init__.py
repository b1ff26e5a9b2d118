"""The run's config. One YAML, typed, frozen and strict; checked before anything is loaded.

A file says only what differs from the defaults here. `a.b=c` on the command line overrides one field.
"""

from cloc.config.reading import (
    REPOSITORY,
    checked,
    dump_config,
    find_config,
    load_config,
    parse_config,
    read_config,
)
from cloc.config.run import Config, DataConfig, RunConfig
from cloc.config.strict import Strict

__all__ = [
    "REPOSITORY",
    "Config",
    "DataConfig",
    "RunConfig",
    "Strict",
    "checked",
    "dump_config",
    "find_config",
    "load_config",
    "parse_config",
    "read_config",
]

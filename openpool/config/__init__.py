"""The configuration: `load` reads it, `Config` is all of it, `explain` says where it came from.

Only `openpool.app` and `openpool.cli` import this; components take plain arguments.
"""

from openpool.config.explain import Explained, explain, reference
from openpool.config.kinds import HostPort, Secret
from openpool.config.load import ConfigError, Loaded, load, load_for_serving, unservable
from openpool.config.settings import Config, GroupSettings, OrchestratorSettings

__all__ = [
    "Config",
    "ConfigError",
    "Explained",
    "GroupSettings",
    "HostPort",
    "Loaded",
    "OrchestratorSettings",
    "Secret",
    "explain",
    "load",
    "load_for_serving",
    "reference",
    "unservable",
]

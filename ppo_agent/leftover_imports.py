"""Tells who imports this package and still makes TF-Agents' agent.

`from tf_agents.agents.ppo import ppo_agent` below `import ppo_agent` gives the name to TF-Agents' module, and nothing
would look different but for the numbers and the time.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from typing import Any


def watch() -> None:
    """Makes the first use of TF-Agents' `PPOAgent` a warning. TF-Agents' agents have to be loaded."""
    cls: Any = importlib.import_module("tf_agents.agents.ppo.ppo_agent").PPOAgent
    original = cls.__init__

    @functools.wraps(original)
    def construct(self: Any, *arguments: Any, **keywords: Any) -> None:
        cls.__init__ = original
        warnings.warn(
            f"{type(self).__name__} is one of TF-Agents' PPO, expected one of this package's, which is imported too: "
            "does `from tf_agents.agents.ppo import ppo_agent` hide `import ppo_agent`?",
            stacklevel=2,
        )
        original(self, *arguments, **keywords)

    cls.__init__ = construct

"""Objects of which there is one: what is copied would hold half of TensorFlow's state."""

from __future__ import annotations

from typing import Any, NoReturn


class NotCopied:
    """Refuses to be pickled or copied, in one sentence rather than in the words of what it holds."""

    def __deepcopy__(self, memo: Any) -> NoReturn:
        """Refuses `copy.deepcopy`."""
        self._refuse("copied")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuses `pickle` and `copy.copy`."""
        self._refuse("pickled or copied")

    def _refuse(self, what: str) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} is {what}, expected to be created again: its variables and compiled functions "
            "belong to this process; take their values along with ppo_agent.checkpoint.TrainingCheckpoint."
        )

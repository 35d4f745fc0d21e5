"""What a new user does with a trainer, in a notebook: the cells are executed by a kernel, one after the other."""

import sys
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

CELLS = (
    """
import os, signal, threading
import ppo_agent
import gymnasium as gym
import numpy as np
import tensorflow as tf
""",
    # An environment with a Dict observation.
    """
class Lights(gym.Env):
    observation_space = gym.spaces.Dict(
        {"place": gym.spaces.Box(-1, 1, (2,), np.float32), "light": gym.spaces.Discrete(3)})
    action_space = gym.spaces.Discrete(3, start=1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.observe(), {}

    def observe(self):
        self.light = int(self.np_random.integers(3))
        return {"place": self.np_random.uniform(-1, 1, 2).astype(np.float32), "light": self.light}

    def step(self, action):
        reward, self.count = float(action == 1 + self.light), self.count + 1
        ended = self.count == 8
        return self.observe(), reward, False, ended, {"is_success": reward == 1.0}
""",
    # A network of one's own.
    """
class Encoder(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = tf.keras.layers.Dense(16, "tanh")

    def call(self, observation):
        light = tf.one_hot(tf.cast(observation["light"], tf.int32), 3)
        return self.dense(tf.concat([observation["place"], tf.reshape(light, [-1, 3])], axis=-1))

def make_agent(time_step_spec, action_spec):
    return ppo_agent.PPOClipAgent(
        time_step_spec, action_spec, tf.keras.optimizers.Adam(0.01),
        ppo_agent.networks.ActorNetwork(time_step_spec.observation, action_spec, encoder=Encoder()),
        ppo_agent.networks.ValueNetwork(time_step_spec.observation, encoder=Encoder()),
        importance_ratio_clipping=0.2, num_epochs=10, minibatch_size=64, use_gae=True)
""",
    # A callback that stops.
    """
returns = []

def stop_when_good(trainer):
    returns.append(trainer.mean_return)
    return trainer.mean_return < 6.5

trainer = ppo_agent.Trainer(Lights, agent=make_agent, num_environments=8, collect_steps_per_iteration=32)
trainer.train(100_000, callbacks=[stop_when_good])
assert trainer.mean_return >= 6.5 and trainer.environment_steps < 100_000, (trainer, returns)
assert 0 <= trainer.metrics["info/is_success"] <= 1
""",
    # A picture inline.
    """
%matplotlib inline
import matplotlib.pyplot as plt
plt.plot(returns);
""",
    # The stop button, which sends a SIGINT.
    """
before = trainer.environment_steps
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
trainer.train(10**8)
""",
    # And on.
    """
interrupted = trainer.environment_steps
assert interrupted > before and trainer.metrics["environment_steps"] == interrupted
trainer.train(1_000)
assert interrupted < trainer.environment_steps <= interrupted + 1_000
print(trainer.evaluate(4))
""",
    """
trainer.save("lights")
observation = {"place": np.zeros(2, np.float32), "light": 2}
action, _ = trainer.predict(observation)
trainer.close()
loaded = ppo_agent.Trainer.load("lights", agent=make_agent, env=Lights)
assert loaded.environment_steps == trainer.environment_steps
assert loaded.predict(observation)[0] == action == 3
loaded.train(500)
loaded.close()
""",
)
INTERRUPTED = 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Of Jupyter's own.
def test_a_day_of_a_new_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
    )
    cells = client.execute().cells
    errors = {
        index: (output.ename, output.evalue)
        for index, cell in enumerate(cells)
        for output in cell.outputs
        if output.output_type == "error"
    }
    assert list(errors) == [INTERRUPTED], errors
    assert errors[INTERRUPTED][0] in ("KeyboardInterrupt", "Interrupted")
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    assert any("Evaluation(returns=" in output.get("text", "") for cell in cells for output in cell.outputs)

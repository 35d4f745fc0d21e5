"""The training loop as an object: what `ppo-train` does, from Python."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tf_agents.environments import tf_environment
from tf_agents.trajectories import TimeStep

from ppo_agent import presets
from ppo_agent.agent import PPOAgent
from ppo_agent.callbacks.base import Callbacks, as_list
from ppo_agent.checkpoint import CheckpointStore
from ppo_agent.common.atomic_files import write_json
from ppo_agent.common.checks import check_int, check_seed
from ppo_agent.common.types import Array, Nest
from ppo_agent.training import choosing, evaluation, loading, named_environments, parameters, run_environments
from ppo_agent.training.command_line import warn
from ppo_agent.training.console import ConsoleTable
from ppo_agent.training.evaluation import Evaluation
from ppo_agent.training.experiment import Learner, make_learner
from ppo_agent.training.global_state import seed_everything, use_threads
from ppo_agent.training.interrupts import InterruptGuard, active_guard
from ppo_agent.training.named_environments import EnvLike
from ppo_agent.training.recorder import RunRecorder
from ppo_agent.training.run_directory import RunDirectory
from ppo_agent.training.running import Run
from ppo_agent.training.trainer_state import TrainerState

PathLike = str | os.PathLike[str]
# An agent, a function from the specs of time steps and actions to one, or the kind of one.
AgentLike = PPOAgent | Callable[[TimeStep, Nest], PPOAgent] | str | None


class Trainer(TrainerState):
    """Trains an agent in an environment; `ppo-train` is this class with flags.

    Example:
        trainer = ppo_agent.Trainer("CartPole-v1", seed=0)
        trainer.train(100_000)
        print(trainer.evaluate(num_episodes=20).mean)
        trainer.save("cartpole")
        trainer = ppo_agent.Trainer.load("cartpole")
        action, state = trainer.predict(observation)

    What it knows of its run, such as `agent`, `environment_steps` and `metrics`, stands in `TrainerState`.
    """

    def __init__(
        self,
        env: EnvLike,
        *,
        seed: int = 0,
        root_dir: PathLike | None = None,
        preset: str = presets.AUTO,
        agent: AgentLike = None,
        callbacks: Iterable[Any] = (),
        **settings: Any,
    ) -> None:
        """Makes environments and agent; nothing is written yet.

        Args:
            env: an id, as `ppo-train --env_name` takes it; a callable that returns a `gymnasium.Env`; a gymnasium
                vector environment; or a `TFEnvironment`. Those that are given ready are closed by `close`.
            seed: of everything that is random; Python's, NumPy's and TensorFlow's global generators are seeded.
            root_dir: folder for everything that `ppo-train` writes; None writes nothing.
            preset: `auto` (of the environment, or general settings), `none`, the name of a preset, or a JSON file with
                `settings` by name, such as a search writes and the settings.json of a run is.
            agent: an agent in place of one that the settings describe, with networks and optimiser of your own: ready,
                or a function that makes it of the environment's `time_step_spec` and `action_spec`. Or which of those
                that the settings describe, `clip` (the default) or `kl_penalty`.
            callbacks: called in every `train`, see `ppo_agent.callbacks`.
            **settings: fields of `Settings`, the flags of `ppo-train`; they beat the preset.

        Raises:
            TypeError: an argument is of another kind.
            ValueError: a setting is unknown or out of range, settings do not fit one another, the environment is of
                no use for PPO, or `root_dir` cannot be used.
        """
        agent, settings = choosing.sorted_out(agent, settings)
        if check_seed(seed) is None:
            raise ValueError("seed is None, expected an int of at least 0.")
        callbacks = as_list(callbacks)
        directory = None if root_dir is None else RunDirectory(root_dir)
        if directory is not None:
            directory.check(resume=False)
        if choosing.is_maker(agent):
            use_threads(settings.get("num_threads", 0))
            seed_everything(seed)
            agent = choosing.made_for(env, agent)
        if agent is None:
            chosen, source = choosing.choose(env, preset, settings)
        else:
            chosen, source = choosing.for_agent(agent, env, settings), "a ready agent"
        use_threads(chosen.num_threads)
        seed_everything(seed)
        self._start(env, seed, chosen, source, callbacks)
        made = self.env
        self._own_agent = agent is not None
        if agent is None:
            self._use(make_learner(made.time_step_spec(), made.action_spec(), chosen))
        else:
            self._use(Learner(agent))
        self._get_collector()
        if directory is not None:
            self.recorder = RunRecorder(directory, chosen.checkpoints_kept)

    @classmethod
    def load(
        cls,
        path: PathLike,
        env: EnvLike = None,
        *,
        agent: AgentLike = None,
        root_dir: PathLike | None = None,
        callbacks: Iterable[Any] = (),
        **settings: Any,
    ) -> Trainer:
        """A trainer that continues from what `save` or a run with a folder has written.

        Nothing in the folder is executed, see docs/reliability.md. The environment is made when it is first needed:
        `predict` works without it.

        Args:
            path: the folder; of a run, the newest sound checkpoint is taken.
            env: in place of the saved environment's name; needed for training if that was no name.
            agent: where the saved trainer was given an agent: one made in the same way, or the function.
            root_dir: folder to write into; the run's own one continues it, None writes nothing.
            callbacks: as for a new trainer.
            **settings: those in `settings.MAY_CHANGE` that shall be different.

        Raises:
            CheckpointError: there is nothing to continue from.
            ValueError: the folder, the environment or a setting does not fit.
        """
        agent, settings = choosing.sorted_out(agent, settings)
        callbacks = as_list(callbacks)
        return loading.load(cls, path, env, agent, root_dir, callbacks, settings)

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the environments and gives the folder back; may be called again.

        What was compiled is left to the next trainer with an equal agent: `predict` works on, further training of the
        agent compiles again.
        """
        if self.recorder is not None:
            self.recorder.close()
        if not self._is_closed and self._env is not None:
            close = getattr(self._env, "close", None)
            if close is not None:
                close()
        if not self._is_closed and "loop" in vars(self):
            self.loop.learner.close()
        self._is_closed = True

    def train(
        self, total_environment_steps: int | None = None, callbacks: Iterable[Any] = (), *, reset_counter: bool = False
    ) -> Trainer:
        """Trains; may be called again, and continues then.

        Schedules run over all environment steps that are counted, those of earlier calls included. With a folder, the
        policy is evaluated at the end and everything is written.

        Args:
            total_environment_steps: how many more to take, at most; None for what is left of
                `settings.total_environment_steps`.
            callbacks: called beside those of the constructor, see `ppo_agent.callbacks`.
            reset_counter: whether environment steps are counted from zero again.

        Returns:
            This trainer.

        Raises:
            KeyboardInterrupt: on Ctrl-C, after the iteration under way; on a second one at once. The trainer can
                continue.
            CallbackError: a callback raised an error; what was trained is kept.
            EnvironmentFaultError: the environments failed; likewise.
            NonFiniteUpdateError: the numbers failed; likewise.
        """
        if self._is_closed:
            raise ValueError("the trainer is closed, expected one whose environments are open.")
        if self._is_training:
            raise ValueError("train is called by a callback of train, expected it when that has ended.")
        if reset_counter:
            if self.recorder is not None:
                raise ValueError("reset_counter is True with root_dir, expected False: the rows in its files continue.")
            self.loop.reset_counter()
            self.evaluations.clear()
        target = self.settings.total_environment_steps
        collector = self._get_collector()
        if total_environment_steps is not None:
            target = self.environment_steps + check_int("total_environment_steps", total_environment_steps)
            # An iteration that is not whole is worth more than none.
            collector.last_steps = 0
        before, self.target_steps = self.environment_steps, target
        extra = [ConsoleTable(self.settings.log_interval)] if self.settings.log_interval else []
        calls = Callbacks([*extra, *self._callbacks, *as_list(callbacks)])
        is_alone = active_guard() is None
        finishes = is_alone or named_environments.has_variables(self.env)
        self._is_training = True
        try:
            with InterruptGuard([signal.SIGINT], watched=False) if is_alone else contextlib.nullcontext():
                Run(self, collector, calls, finishes=finishes).to(target)
        finally:
            self._is_training = False
        if self.environment_steps == before < target and not calls.stop:
            warn(
                f"no step was taken: {target - before} are left, expected enough for every environment and a minibatch."
            )
        return self

    def evaluate(self, num_episodes: int = 20, *, env: EnvLike = None, deterministic: bool | None = None) -> Evaluation:
        """Runs episodes with the present policy, without learning from them.

        Environments of their own are made for it if the trainer's was given as a name or a callable; else the
        episodes under way in it are dropped.

        Args:
            num_episodes: N.
            env: other environments for it, as the constructor takes them; ready ones are left open.
            deterministic: whether the most likely actions are taken; None as `settings.greedy_eval` says.

        Returns:
            `.returns` (N floats), `.mean` and `.std`.

        Raises:
            ValueError: `num_episodes` is no positive int, or the environment does not fit.
        """
        check_int("num_episodes", num_episodes)
        if deterministic not in (None, True, False):
            raise ValueError(f"deterministic is {deterministic!r}, expected None, True or False.")
        start = time.perf_counter()
        with self._evaluation_env(self._env_like if env is None else env, num_episodes) as found:
            run_environments.check_fit(found, self.agent)
            policy = self.agent.policy
            if deterministic is not None and deterministic != self.settings.greedy_eval:
                policy = self._get_actor().policies[deterministic]
            result = evaluation.evaluate(found, evaluation.act_with(policy, found.batch_size), num_episodes)
        self.loop.leave_out(time.perf_counter() - start)
        return result

    @contextlib.contextmanager
    def _evaluation_env(self, like: EnvLike, num_episodes: int) -> Iterator[tf_environment.TFEnvironment]:
        if like is not self._env_like or named_environments.is_recipe(like):
            with run_environments.for_evaluation(like, num_episodes, self.settings, self.seed) as env:
                yield env
            return
        env = self.env
        try:
            yield env
        finally:
            self._get_collector().restart()

    def predict(
        self, observation: Nest, state: Nest = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[Nest, Nest]:
        """The policy's action, as the environment takes it.

        Args:
            observation: nest of arrays, one observation or a batch [B, ...].
            state: what the last call returned, for policies with a memory; None at the beginning.
            episode_start: bool or [B], where an episode begins and the memory is cleared; None: where `state` is None.
            deterministic: the most likely action instead of a sample.

        Returns:
            (action, state); the state is None for a policy without memory.

        Raises:
            ValueError: the observation does not fit.
        """
        return self._get_actor().predict(observation, state, episode_start, deterministic)

    def action_probability(self, observation: Nest, actions: Nest = None, logp: bool = False) -> Nest:
        """The policy's distribution, or the probability (density) of actions.

        Args:
            observation: one observation or a batch.
            actions: as `predict` returns them; None for the distribution itself.
            logp: whether the logarithm is returned; with `actions` only.

        Returns:
            For `actions`, a float or [B]. Else, for each leaf of the action, probabilities [..., n] of discrete
            actions, or (mean, standard deviation) of continuous ones.
        """
        return self._get_actor().action_probability(observation, actions, logp)

    def value(self, observation: Nest) -> Array:
        """The predicted value of one observation, a float, or of a batch, [B]; memories start from zero."""
        return self._get_actor().value(observation)

    def get_parameters(self) -> dict[str, Array]:
        """All variables of networks and observation normaliser by name, arrays."""
        return parameters.get_parameters(self.agent)

    def load_parameters(self, source: Any, *, exact_match: bool = True) -> parameters.LoadedParameters:
        """Takes over variables by name.

        Args:
            source: what `get_parameters` returned, or the folder of a run or a saved trainer.
            exact_match: whether names and shapes must be the same; else what fits is taken.

        Returns:
            Names `loaded`, and `skipped`, a reason by name.

        Raises:
            ValueError: something does not fit, with `exact_match`; or nothing does. Nothing is changed.
        """
        return parameters.load_parameters(self.agent, source, exact_match=exact_match)

    def save(self, path: PathLike, *, kept: int = 1) -> None:
        """Writes everything that `load` needs into a folder: complete or not at all.

        Args:
            path: the folder; what was saved there before is replaced, if it was a trainer.
            kept: how many of the last ones stay.

        Raises:
            ValueError: the folder holds a run of another kind.
            OSError: it cannot be written.
        """
        directory = RunDirectory(path)
        directory.check_for_saving()
        with self.guard.deferred():
            directory.path.mkdir(parents=True, exist_ok=True)
            write_json(directory.settings, self.describe())
            self.write_checkpoint(CheckpointStore(directory.checkpoints, kept, warn))

    def pretrain(self, episodes: Any, num_epochs: int = 10, **options: Any) -> Any:
        """Behaviour cloning: makes the policy take the actions of recorded episodes.

        Args:
            episodes: see `ppo_agent.pretraining.read_episodes`.
            num_epochs: passes over them.
            **options: see `ppo_agent.pretraining.pretrain`.

        Returns:
            Losses and accuracies, see `ppo_agent.pretraining.Pretraining`.
        """
        from ppo_agent import pretraining

        with self.guard.deferred():
            known = {"seed": self.seed, "encoding": self._encoding()}
            return pretraining.pretrain(self.agent, episodes, num_epochs, **{**known, **options})

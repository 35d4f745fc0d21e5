"""The training loop as an object: what `ppo-train` does, from Python."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.environments import tf_environment
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from ppo_agent import presets
from ppo_agent.agent import PPOAgent
from ppo_agent.callbacks.base import Callbacks
from ppo_agent.checkpoint import CheckpointStore, TrainingCheckpoint
from ppo_agent.checkpoint.store import Loaded
from ppo_agent.common.checks import check_int, check_seed
from ppo_agent.common.types import Array, Nest
from ppo_agent.training import choosing, evaluation, loading, named_environments, parameters
from ppo_agent.training.acting import Actor
from ppo_agent.training.collection import Collector
from ppo_agent.training.command_line import warn
from ppo_agent.training.console import ConsoleTable
from ppo_agent.training.evaluation import Evaluation
from ppo_agent.training.experiment import Learner, make_learner
from ppo_agent.training.interrupts import InterruptGuard, active_guard
from ppo_agent.training.loop import TrainingLoop
from ppo_agent.training.named_environments import EnvLike
from ppo_agent.training.random_state import GlobalGenerators, seed_everything
from ppo_agent.training.recorder import RunRecorder
from ppo_agent.training.run_directory import RunDirectory, write_json
from ppo_agent.training.run_failures import FAILURES, told
from ppo_agent.training.saved_run import SavedRun
from ppo_agent.training.settings import Settings, check_names
from ppo_agent.training.threads import use_threads

# Added to a run's seed, so that it is evaluated in other episodes than those that it was trained in.
EVALUATION_SEED_OFFSET = 1_000_003
PathLike = str | os.PathLike[str]


class Trainer:
    """Trains an agent in an environment; `ppo-train` is this class with flags.

    Example:
        trainer = ppo_agent.Trainer("CartPole-v1", seed=0)
        trainer.train(100_000)
        print(trainer.evaluate(num_episodes=20).mean)
        trainer.save("cartpole")
        trainer = ppo_agent.Trainer.load("cartpole")
        action, state = trainer.predict(observation)

    Attributes:
        settings: of the run, see `Settings`.
        seed: of everything that is random.
        env_name: the name of the environment; None if it was given otherwise.
        source: in words, where the settings come from.
        recorder: writes the files of the run; None without a folder.
        result: what result.json says after a call of `train`; None without a folder.
        target_steps: environment steps that `train` goes up to.
        evaluations: those that `train` has made, (environment steps, `Evaluation`) each.
    """

    recorder: RunRecorder | None

    def __init__(
        self,
        env: EnvLike,
        *,
        seed: int = 0,
        root_dir: PathLike | None = None,
        preset: str = presets.AUTO,
        agent: PPOAgent | str | None = None,
        callbacks: Iterable[Any] = (),
        **settings: Any,
    ) -> None:
        """Makes environments and agent; nothing is written yet.

        Args:
            env: an id, as `ppo-train --env_name` takes it; a callable that returns a `gymnasium.Env`; a gymnasium
                vector environment; or a `TFEnvironment`. Those that are given ready are closed by `close`.
            seed: of everything that is random; Python's, NumPy's and TensorFlow's global generators are seeded.
            root_dir: folder for everything that `ppo-train` writes; None writes nothing.
            preset: `auto` (of the environment, or general settings), `none`, or the name of a preset.
            agent: a ready agent in place of one that the settings describe; or which of those, `clip` (the default) or
                `kl_penalty`.
            callbacks: called in every `train`, see `ppo_agent.callbacks`.
            **settings: fields of `Settings`, the flags of `ppo-train`; they beat the preset.

        Raises:
            TypeError: an argument is of another kind.
            ValueError: a setting is unknown or out of range, settings do not fit one another, the environment is of
                no use for PPO, or `root_dir` cannot be used.
        """
        agent, settings = _sorted_out(agent, settings)
        check_names(settings)
        if check_seed("seed", seed) is None:
            raise ValueError("seed is None, expected an int of at least 0.")
        Callbacks(callbacks := list(callbacks))
        directory = None if root_dir is None else RunDirectory(root_dir)
        if directory is not None:
            directory.check(resume=False)
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

    def _start(self, env: EnvLike, seed: int, settings: Settings, source: str, callbacks: list[Any]) -> None:
        self.settings, self.seed, self.source = settings, int(seed), source
        self.env_name = env if isinstance(env, str) else None
        self.recorder = None
        self.result: dict[str, Any] | None = None
        self.evaluations: list[tuple[int, Evaluation]] = []
        self._callbacks = callbacks
        self._env_like, self._env = env, None
        self._steps_before = 0
        self._pending: Loaded | None = None
        self._is_resumed = self._is_closed = self._has_started = self._own_agent = False
        self.target_steps = settings.total_environment_steps
        self._idle_guard = InterruptGuard(())
        self._calls = Callbacks(())

    def _use(self, learner: Learner) -> None:
        self.loop = TrainingLoop(learner)
        self._actor: Actor | None = None

    @classmethod
    def load(
        cls,
        path: PathLike,
        env: EnvLike = None,
        *,
        agent: PPOAgent | str | None = None,
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
            agent: where the saved trainer was given a ready agent: one made in the same way.
            root_dir: folder to write into; the run's own one continues it, None writes nothing.
            callbacks: as for a new trainer.
            **settings: those in `settings.MAY_CHANGE` that shall be different.

        Raises:
            CheckpointError: there is nothing to continue from.
            ValueError: the folder, the environment or a setting does not fit.
        """
        agent, settings = _sorted_out(agent, settings)
        check_names(settings)
        Callbacks(callbacks := list(callbacks))
        return loading.load(cls, path, env, agent, root_dir, callbacks, settings)

    @property
    def agent(self) -> PPOAgent:
        """The agent."""
        return self.loop.agent

    @property
    def env(self) -> tf_environment.TFEnvironment:
        """The environments that the agent is trained in.

        Raises:
            ValueError: the trainer was loaded without one and its name is not known, or it does not fit.
        """
        if self._env is None:
            if self._env_like is None:
                raise ValueError("env is None, expected an environment: Trainer.load(path, env=...).")
            env = named_environments.make_training_environment(
                self._env_like,
                num_environments=self.settings.num_environments,
                seed=self.seed + self._steps_before,
                vectorization=self.settings.vectorization,
                **self.settings.limits,
            )
            if (loop := getattr(self, "loop", None)) is not None:
                loading.check_fit(env, loop.agent)
            self._env = env
        return self._env

    @property
    def environment_steps(self) -> int:
        """Environment steps so far."""
        return self.loop.environment_steps

    @property
    def num_episodes(self) -> int:
        """Episodes that have ended so far."""
        return self.loop.statistics.num_episodes

    @property
    def mean_return(self) -> float:
        """The mean return of the last 100 training episodes; NaN before the first one has ended."""
        return self.loop.statistics.mean_return()

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers of the last iteration: the columns of metrics.csv, and `agent.train_metrics()`."""
        return dict(self.loop.row)

    @property
    def experience(self) -> Any:
        """The experience of the last iteration, a `Trajectory` [B, T, ...]; None before the first."""
        return self.loop.experience

    @property
    def time_step(self) -> ts.TimeStep:
        """The environments' current time step, arrays [B, ...]."""
        current = getattr(self.env, "current_numpy", None)
        return current() if current else tf.nest.map_structure(np.asarray, self.env.current_time_step())

    @property
    def guard(self) -> InterruptGuard:
        """Holds signals back while the state changes."""
        return active_guard() or self._idle_guard

    def __repr__(self) -> str:
        name = self.env_name or type(self._env_like).__name__
        return f"Trainer({name!r}, seed={self.seed}, environment_steps={self.environment_steps}, {self.settings})"

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the environments and gives the folder back; may be called again."""
        if self.recorder is not None:
            self.recorder.close()
        if not self._is_closed and self._env is not None:
            close = getattr(self._env, "close", None)
            if close is not None:
                close()
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
        if reset_counter:
            if self.recorder is not None:
                raise ValueError("reset_counter is True with root_dir, expected False: the rows in its files go on.")
            self.loop.reset_counter()
            self.evaluations.clear()
        target = self.settings.total_environment_steps
        collector = self._get_collector()
        if total_environment_steps is not None:
            target = self.environment_steps + check_int("total_environment_steps", total_environment_steps)
            # An iteration that is not whole is worth more than none.
            collector.last_steps = 0
        self.target_steps = target
        extra = [ConsoleTable(self.settings.log_interval)] if self.settings.log_interval else []
        with contextlib.ExitStack() as stack:
            is_alone = active_guard() is None
            if is_alone:
                stack.enter_context(InterruptGuard([2], watched=False))
            self._calls = Callbacks([*extra, *self._callbacks, *callbacks])
            try:
                self._run(collector, target, finishes=is_alone or named_environments.has_variables(self.env))
            finally:
                collector.watch_steps(None)
        return self

    def _run(self, collector: Collector, target: int, *, finishes: bool) -> None:
        """Runs iterations; whatever ends them, what was trained is written and told.

        Args:
            collector: of experience.
            target: environment steps to reach.
            finishes: whether a signal waits for the end of an iteration.
        """
        calls = self._calls
        interrupt: KeyboardInterrupt | None = None
        try:
            if self.recorder is not None and not self._has_started:
                self.recorder.start(self, is_resumed=self._is_resumed)
                self._has_started = True
            if calls.has("on_step") and not collector.watch_steps(self._on_step):
                warn("on_step is not called: these environments are stepped inside TensorFlow.")
            calls.call("on_training_start", self)
            while not calls.stop and self._iterate(collector, target, finishes):
                pass
            if self.recorder is not None:
                self._evaluate_once()
        except KeyboardInterrupt as error:
            interrupt = error
        except FAILURES as error:
            self._end(interrupted=False)
            if self.recorder is None:
                raise
            is_saved = self.recorder.save(self)
            self.recorder.close()
            raise told(error, self.recorder.directory, is_saved) from error
        self._end(interrupted=interrupt is not None)
        if self.recorder is not None:
            finished = interrupt is None and not calls.has_error
            self.result = self.recorder.finish(self, interrupted=interrupt is not None, finished=finished)
        if interrupt is not None:
            raise interrupt
        calls.raise_error()

    def _end(self, *, interrupted: bool) -> None:
        """Tells the callbacks that training has ended; a signal does not disturb that again."""
        del interrupted
        with self.guard.deferred(patient=True):
            self._calls.call("on_training_end", self)

    def _iterate(self, collector: Collector, target: int, finishes: bool) -> bool:
        """An iteration and what follows it; returns False if the steps are used up."""
        start = time.perf_counter()
        with self.guard.deferred() if finishes else contextlib.nullcontext():
            if not self.loop.iterate(collector, target, self, self._calls):
                return False
        seconds = time.perf_counter() - start
        beside = time.perf_counter()
        self._calls.call("on_update_end", self)
        if self._is_due(self.settings.eval_interval):
            self._evaluate_once()
        if self.recorder is not None:
            self.recorder.after_iteration(self, seconds)
            if self._is_due(self.settings.checkpoint_interval):
                self.recorder.save(self)
        self.loop.leave_out(time.perf_counter() - beside if self._calls.has("on_update_end") else 0.0)
        return True

    def _is_due(self, interval: int) -> bool:
        return interval > 0 and self.loop.tally.iterations % interval == 0

    def _on_step(self) -> None:
        self._calls.call("on_step", self)

    def record(self, row: Mapping[str, float]) -> None:
        """Writes down the numbers of an iteration, if there is a folder."""
        if self.recorder is not None:
            self.recorder.record(row)

    def recording_agent(self) -> contextlib.AbstractContextManager[Any]:
        """Around the agent's update: its debug summaries go to the run's events."""
        settings = self.settings
        if self.recorder is None or not (settings.debug_summaries or settings.summarize_grads_and_vars):
            return tf.summary.record_if(False) if self.recorder is not None else contextlib.nullcontext()
        return self.recorder.recording_agent()

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
        start = time.perf_counter()
        with contextlib.ExitStack() as stack:
            found = self._evaluation_env(self._env_like if env is None else env, num_episodes, stack)
            policy = self.agent.policy
            if deterministic is not None and deterministic != self.settings.greedy_eval:
                policy = evaluation.other_policy(self.agent, deterministic)
            act = evaluation.act_with(policy, found.batch_size)
            result = evaluation.evaluate(found, act, num_episodes)
        self.loop.leave_out(time.perf_counter() - start)
        return result

    def _evaluation_env(self, like: EnvLike, num_episodes: int, stack: contextlib.ExitStack) -> Any:
        if isinstance(like, str) or (callable(like) and not hasattr(like, "step")):
            name = named_environments.gymnasium_name(like) if isinstance(like, str) else like
            size = evaluation.num_environments(num_episodes)
            env = named_environments.make_environment(
                name, num_environments=size, seed=self.seed + EVALUATION_SEED_OFFSET, **self.settings.limits
            )
            stack.enter_context(env)
        elif like is self._env_like:
            env = self.env
            stack.callback(self._get_collector().restart)
        else:
            env = named_environments.make_training_environment(like, num_environments=1, seed=self.seed)
        loading.check_fit(env, self.agent)
        return env

    def _evaluate_once(self) -> None:
        """Evaluates the policy and writes it down, unless it has not changed since the last time."""
        steps, tally = self.environment_steps, self.loop.tally
        if tally.evaluations and tally.evaluations[-1][0] == steps:
            return
        found = self.evaluate(self.settings.num_eval_episodes)
        with self.guard.deferred():
            tally.evaluations.append([steps, found.mean, found.std])
            self.evaluations.append((steps, found))
            if self.recorder is not None:
                self.recorder.record_evaluation(self, found)
                if tally.last_is_best():
                    self.recorder.save(self)
        self._calls.call("on_evaluation", self)

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
        return self._acting().predict(observation, state, episode_start, deterministic)

    def action_probability(self, observation: Nest, actions: Nest = None, logp: bool = False) -> Nest:
        """The policy's distribution, or the probability (density) of actions.

        Args:
            observation: one observation or a batch.
            actions: as the agent's spec has them; None for the distribution itself.
            logp: whether the logarithm is returned; with `actions` only.

        Returns:
            For `actions`, a float or [B]. Else, for each leaf of the action, probabilities [..., n] of discrete
            actions, or (mean, standard deviation) of continuous ones.
        """
        return self._acting().action_probability(observation, actions, logp)

    def value(self, observation: Nest) -> Array:
        """The predicted value of one observation, a float, or of a batch, [B]; memories start from zero."""
        return self._acting().value(observation)

    def _acting(self) -> Actor:
        if self._actor is None:
            encode = getattr(self._env, "encode_action", None)
            self._actor = Actor(self.agent, encode)
        return self._actor

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
            return pretraining.pretrain(self.agent, episodes, num_epochs, seed=self.seed, **options)

    def describe(self) -> dict[str, Any]:
        """What settings.json says."""
        agent = self.agent
        run = SavedRun(
            self.env_name,
            self.seed,
            self.settings,
            self._own_agent,
            tensor_spec.from_spec(agent.time_step_spec.observation),
            agent.action_spec,
        )
        return run.to_json()

    def checkpoint(self, store: CheckpointStore) -> TrainingCheckpoint:
        """Everything that a checkpoint holds, as far as it has been made."""
        parts: dict[str, Any] = {
            "loop": self.loop,
            "statistics": self.loop.statistics,
            "generators": GlobalGenerators(),
        }
        if self.loop.collector is not None:
            parts["collector"] = self.loop.collector
            self.agent.create_training_variables(self.env.batch_size)
        if self._env is not None and named_environments.has_variables(self._env):
            parts["environment"] = self._env
        return TrainingCheckpoint(store, agent=self.agent, hyper_parameters={"run": self.describe()}, **parts)

    def write_checkpoint(self, store: CheckpointStore) -> None:
        """Writes a checkpoint.

        Raises:
            OSError: it cannot be written.
        """
        found = self.loop.tally.evaluation_at(self.environment_steps)
        self.checkpoint(store).save(self.environment_steps, None if found is None else found[0])

    def _get_collector(self) -> Collector:
        """The collector, made with the environments when it is first needed."""
        if self.loop.collector is None:
            self.loop.collector = Collector(self.env, self.agent, self.settings, self.loop.statistics)
            if self._pending is not None:
                loaded, self._pending = self._pending, None
                store = CheckpointStore(loaded.path.parent)
                self.checkpoint(store).take_over_parts(loaded, ("collector", "environment", "generators"))
        return self.loop.collector


def _sorted_out(agent: PPOAgent | str | None, settings: dict[str, Any]) -> tuple[PPOAgent | None, dict[str, Any]]:
    """The ready agent, if there is one, and the settings: the kind of the agent is one of them."""
    if isinstance(agent, str):
        return None, {**settings, "agent": agent}
    return agent, settings

"""What somebody may have meant by a flag that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Names of the same things in other libraries, and what they are called here.
OTHER_NAMES = {
    "total_timesteps": "total_environment_steps",
    "timesteps": "total_environment_steps",
    "num_timesteps": "total_environment_steps",
    "total_steps": "total_environment_steps",
    "num_steps": "collect_steps_per_iteration",
    "n_steps": "collect_steps_per_iteration",
    "nsteps": "collect_steps_per_iteration",
    "steps_per_epoch": "collect_steps_per_iteration",
    "num_envs": "num_environments",
    "n_envs": "num_environments",
    "num_env": "num_environments",
    "lr": "learning_rate",
    "gamma": "discount_factor",
    "discount": "discount_factor",
    "lam": "lambda_value",
    "gae_lambda": "lambda_value",
    "ent_coef": "entropy_regularization",
    "entropy_coef": "entropy_regularization",
    "vf_coef": "value_pred_loss_coef",
    "value_coef": "value_pred_loss_coef",
    "max_grad_norm": "gradient_clipping",
    "clip_range": "importance_ratio_clipping",
    "cliprange": "importance_ratio_clipping",
    "clip_coef": "importance_ratio_clipping",
    "clip_range_vf": "value_clipping",
    "cliprange_vf": "value_clipping",
    "noptepochs": "num_epochs",
    "n_epochs": "num_epochs",
    "epochs": "num_epochs",
    "update_epochs": "num_epochs",
    "batch_size": "minibatch_size",
    "num_minibatches": "nminibatches",
    "env": "env_name",
    "env_id": "env_name",
    "gym_id": "env_name",
    "environment": "env_name",
    "log_dir": "root_dir",
    "logdir": "root_dir",
    "output_dir": "root_dir",
    "tensorboard_log": "root_dir",
    "save_path": "root_dir",
    "n_cpu_tf_sess": "num_threads",
    "threads": "num_threads",
    "eval_freq": "eval_interval",
    "n_eval_episodes": "num_eval_episodes",
    "save_freq": "checkpoint_interval",
    "net_arch": "actor_fc_layers",
    "hidden_sizes": "actor_fc_layers",
    "ortho_init": "orthogonal_init",
    "norm_obs": "normalize_observations",
    "norm_reward": "normalize_rewards",
    "verbose": "log_interval",
    "episodes": "num_episodes",
    "policy": "policy_dir",
    "model": "policy_dir",
    "video": "video_dir",
}
_NONE_NEEDED = dict.fromkeys(
    ("gpu", "cuda", "device", "use_gpu"),
    "none is needed: TensorFlow uses a GPU that it finds",
)


def hint(name: str, known: Iterable[str]) -> str:
    """What to say of an unknown flag, a part of a sentence with a space in front; empty if nothing is known."""
    plain = name.lower().lstrip("-").replace("-", "_").removeprefix("no_")
    known = list(known)
    if plain in _NONE_NEEDED:
        return f" ({_NONE_NEEDED[plain]})"
    if (same := OTHER_NAMES.get(plain)) in known:
        return f" (did you mean --{same}?)"
    close = difflib.get_close_matches(plain, known, n=1, cutoff=0.7)
    return f" (did you mean --{close[0]}?)" if close else ""

"""What somebody may have meant by a flag that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# What flags are called in other libraries.
_OTHER_NAMES = {
    "total_environment_steps": "total_timesteps timesteps num_timesteps total_steps",
    "collect_steps_per_iteration": "num_steps n_steps nsteps steps_per_epoch",
    "num_environments": "num_envs n_envs num_env",
    "learning_rate": "lr",
    "discount_factor": "gamma discount",
    "lambda_value": "lam gae_lambda",
    "entropy_regularization": "ent_coef entropy_coef",
    "value_pred_loss_coef": "vf_coef value_coef",
    "gradient_clipping": "max_grad_norm",
    "importance_ratio_clipping": "clip_range cliprange clip_coef",
    "value_clipping": "clip_range_vf cliprange_vf",
    "num_epochs": "noptepochs n_epochs epochs update_epochs",
    "minibatch_size": "batch_size",
    "nminibatches": "num_minibatches",
    "env_name": "env env_id gym_id environment",
    "root_dir": "log_dir logdir output_dir tensorboard_log save_path",
    "num_threads": "n_cpu_tf_sess threads",
    "eval_interval": "eval_freq",
    "num_eval_episodes": "n_eval_episodes",
    "checkpoint_interval": "save_freq",
    "actor_fc_layers": "net_arch hidden_sizes",
    "orthogonal_init": "ortho_init",
    "normalize_observations": "norm_obs",
    "normalize_rewards": "norm_reward",
    "log_interval": "verbose",
    "num_episodes": "episodes",
    "policy_dir": "policy model",
    "video_dir": "video",
}
_OWN_NAMES = {other: own for own, others in _OTHER_NAMES.items() for other in others.split()}
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
    if (same := _OWN_NAMES.get(plain)) in known:
        return f" (did you mean --{same}?)"
    close = difflib.get_close_matches(plain, known, n=1, cutoff=0.7)
    return f" (did you mean --{close[0]}?)" if close else ""

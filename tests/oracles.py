"""What the agent must compute, as plain NumPy loops in float64; nothing of the package is used here."""

import dataclasses

import numpy as np

FIRST, MID, LAST = 0, 1, 2


def transitions(step_type, next_step_type):
    """Rows whose action was carried out in the environment."""
    valid = np.zeros(step_type.shape, bool)
    for index in np.ndindex(step_type.shape):
        valid[index] = step_type[index] != LAST and next_step_type[index] != FIRST
    return valid


def trained_rows(step_type, next_step_type):
    """Transitions but those at the last time index, whose outcome is not known."""
    valid = transitions(step_type, next_step_type)
    valid[:, -1] = False
    return valid


def returns_and_advantages(rewards, discounts, next_step_type, values, gamma, lambda_):
    """Monte-Carlo returns, advantages by GAE and lambda-returns , each [B, T], of values [B, T + 1].

    At an episode's end the future is worth the discounted value of the final observation: nothing where the discount
    is 0, and V(s[t+1]) where a time limit cut the episode short. The future of the last row is its next value.
    """
    batch, length = values.shape[0], values.shape[1] - 1
    returns, advantages = np.zeros((batch, length)), np.zeros((batch, length))
    for b in range(batch):
        next_return, next_advantage = float(values[b, length]), 0.0
        for t in reversed(range(length)):
            discount = gamma * float(discounts[b, t])
            next_value = float(values[b, t + 1]) if discount else 0.0
            if next_step_type[b, t] == LAST:
                next_return, next_advantage = next_value, 0.0
            future_return = discount * next_return if discount else 0.0
            future_advantage = lambda_ * discount * next_advantage if discount and lambda_ else 0.0
            returns[b, t] = rewards[b, t] + future_return
            advantages[b, t] = rewards[b, t] + discount * next_value - values[b, t] + future_advantage
            next_return, next_advantage = returns[b, t], advantages[b, t]
    return returns, advantages, advantages + values[:, :-1]


def normalized(values, valid, epsilon=1e-8):
    """Values of mean 0 and variance 1 over the valid entries, 0 elsewhere."""
    kept = np.asarray(values, np.float64)[valid]
    result = np.zeros(np.shape(values))
    result[valid] = (kept - kept.mean()) / np.sqrt(kept.var() + epsilon)
    return result


def explained_variance(returns, values, valid):
    returns, values = np.float64(returns)[valid], np.float64(values)[valid]
    return 1 - np.var(returns - values) / np.var(returns)


class Normalizer:
    """Running mean and variance of all rows seen, from a first count of 1e-8."""

    def __init__(self, shape=()):
        self.rows = np.zeros((0, *shape))

    def update(self, rows):
        self.rows = np.concatenate([self.rows, np.float64(rows)])

    @property
    def mean(self):
        return self.rows.sum(0) / (len(self.rows) + 1e-8)

    @property
    def variance(self):
        return np.square(self.rows - self.mean).sum(0) / (len(self.rows) + 1e-8)

    def normalize(self, x, clip=5.0, center=True, epsilon=1e-3):
        mean = self.mean if center else 0.0
        result = (np.float64(x) - mean) / np.sqrt(self.variance + epsilon)
        return np.clip(result, -clip, clip) if clip > 0 else result


def updated_beta(beta, mean_kl, target, tolerance):
    if mean_kl > target * (1 + tolerance):
        beta *= 1.5
    elif mean_kl < target * (1 - tolerance):
        beta /= 1.5
    return min(max(beta, 1e-15), 1e17)


class Categorical:
    """Categorical distributions over the last axis of logits; the axes behind `outer_rank` are summed over."""

    def __init__(self, logits, outer_rank=2):
        shifted = np.float64(logits) - np.max(logits, -1, keepdims=True)
        self.log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        self._rank = outer_rank

    def _sum(self, x):
        return x.reshape(*x.shape[: self._rank], -1).sum(-1)

    def log_prob(self, actions):
        return self._sum(np.take_along_axis(self.log_p, actions[..., None].astype(int), -1)[..., 0])

    def entropy(self):
        return self._sum(-(np.exp(self.log_p) * self.log_p).sum(-1))

    def kl(self, other):
        return self._sum((np.exp(self.log_p) * (self.log_p - other.log_p)).sum(-1))


class Normal:
    """Independent normal distributions; the axes behind `outer_rank` are summed over."""

    def __init__(self, loc, scale, outer_rank=2):
        self.loc, self.scale, self._rank = np.float64(loc), np.float64(scale), outer_rank

    def _sum(self, x):
        return x.reshape(*x.shape[: self._rank], -1).sum(-1)

    def log_prob(self, actions):
        z = (np.float64(actions) - self.loc) / self.scale
        return self._sum(-0.5 * z * z - np.log(self.scale) - 0.5 * np.log(2 * np.pi))

    def entropy(self):
        return self._sum(np.log(self.scale) + 0.5 * np.log(2 * np.pi * np.e) + 0 * self.loc)

    def kl(self, other):
        ratio = self.scale / other.scale
        distance = (self.loc - other.loc) / other.scale
        return self._sum(0.5 * (ratio**2 + distance**2 - 1) - np.log(ratio))


def surrogate(log_probs, old_log_probs, advantages, clipping, dual_clipping=0.0):
    """Per-step loss, by the cases of the textbook."""
    loss = np.zeros(np.shape(log_probs))
    for index in np.ndindex(loss.shape):
        ratio, advantage = np.exp(np.float64(log_probs[index]) - old_log_probs[index]), advantages[index]
        if clipping:
            ratio = min(ratio, 1 + clipping) if advantage > 0 else max(ratio, 1 - clipping)
        if dual_clipping and advantage < 0:
            ratio = min(ratio, dual_clipping)
        loss[index] = -ratio * advantage
    return loss


def value_loss(values, returns, old_values, clipping):
    loss = np.zeros(np.shape(values))
    for index in np.ndindex(loss.shape):
        value, target, old = (np.float64(x[index]) for x in (values, returns, old_values))
        loss[index] = (target - value) ** 2
        if clipping:
            clipped = min(max(value, old - clipping), old + clipping)
            loss[index] = max(loss[index], (target - clipped) ** 2)
    return loss


@dataclasses.dataclass
class Loss:
    """The terms of one gradient step's loss, and what `train_metrics` tells of it."""

    policy_gradient_loss: float
    value_estimation_loss: float
    l2_regularization_loss: float
    entropy_regularization_loss: float
    kl_penalty_loss: float
    clip_fraction: float
    entropy: float
    approx_kl: float

    @property
    def loss(self):
        terms = dataclasses.astuple(self)
        return sum(terms[:5])


def ppo_loss(
    valid,
    current,
    old,
    actions,
    advantages,
    values,
    returns,
    old_values,
    weights=1.0,
    *,
    clipping=0.0,
    value_clipping=0.0,
    value_coef=0.5,
    entropy_coef=0.0,
    beta=0.0,
    kl_cutoff=0.0,
    kl_cutoff_coef=1000.0,
    log_prob_clipping=0.0,
    l2=0.0,
):
    """The whole PPO loss: every term is a mean over the valid steps alone.

    Args:
        valid: bool [B, T].
        current: distribution of the networks as they are.
        old: distribution that the actions were drawn from.
        actions: [B, T, ...].
        advantages: [B, T], not normalised.
        values: what the value network predicts [B, T].
        returns: its targets [B, T].
        old_values: what it predicted before [B, T].
        weights: anything that broadcasts against [B, T].
        clipping: epsilon of the surrogate; the others likewise are the agent's keywords.
        l2: weight decay, a number to add.
    """
    weights = np.broadcast_to(weights, valid.shape)

    def mean(per_step):
        return float(np.mean([per_step[i] * weights[i] for i in zip(*np.nonzero(valid), strict=True)]))

    log_probs, old_log_probs = current.log_prob(actions), old.log_prob(actions)
    if log_prob_clipping:
        log_probs = np.clip(log_probs, -log_prob_clipping, log_prob_clipping)
    mean_kl = mean(old.kl(current))
    kl_loss = beta * mean_kl
    if kl_cutoff:
        kl_loss += kl_cutoff_coef * max(mean_kl - kl_cutoff, 0) ** 2
    log_ratio = (log_probs - old_log_probs)[valid]
    ratio = np.exp(log_ratio)
    return Loss(
        policy_gradient_loss=mean(surrogate(log_probs, old_log_probs, normalized(advantages, valid), clipping)),
        value_estimation_loss=value_coef * mean(value_loss(values, returns, old_values, value_clipping)),
        l2_regularization_loss=l2,
        entropy_regularization_loss=-entropy_coef * mean(current.entropy()),
        kl_penalty_loss=kl_loss,
        clip_fraction=float(np.mean(np.abs(ratio - 1) > clipping)) if clipping else 0.0,
        entropy=mean(current.entropy()),
        approx_kl=float(np.mean(ratio - 1 - log_ratio)),
    )


def clipped_by_global_norm(gradients, bound):
    """Gradients and their norm before clipping."""
    norm = np.sqrt(sum(np.sum(np.square(np.float64(g))) for g in gradients))
    factor = bound / max(norm, bound) if bound else 1.0
    return [factor * g for g in gradients], norm


class Joint:
    """Independent distributions, one for each leaf of a nest."""

    def __init__(self, parts):
        self.parts = parts

    def log_prob(self, actions):
        return sum(p.log_prob(a) for p, a in zip(self.parts, actions, strict=True))

    def entropy(self):
        return sum(p.entropy() for p in self.parts)

    def kl(self, other):
        return sum(p.kl(o) for p, o in zip(self.parts, other.parts, strict=True))

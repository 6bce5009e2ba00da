"""Group relative policy optimization: of several answers to one prompt, those better than their group's mean gain.

`group_advantages` turns rewards into advantages; `token_losses` says what each token would lose; `token_weights` how
much each token counts; `grpo_loss` adds up. All are equal to TRL's `GRPOTrainer`, whose names for the choices are used.
"""

import torch
from torch import Tensor

from ..errors import LabError, choose, real, whole

SCALES = ("group", "batch", "none")  # TRL's scale_rewards; "group" is its default and the paper's
LOSSES = ("dapo", "bnpo", "grpo", "dr_grpo")  # TRL's loss_type; "dapo" is its default, "grpo" the paper's
EPSILON = 1e-4  # TRL adds it to a standard deviation before it divides


def group_advantages(rewards: Tensor, group_size: int, scale: str = "group") -> Tensor:
    """How much better each answer is than its group.

    Parameters
    ----------
    rewards : float Tensor, shape (groups · group_size,); the answers to one prompt lie side by side
    group_size : int >= 2
    scale : name in `SCALES`
        "group": divided by the group's standard deviation, so that an easy prompt counts as much as a hard one;
        "batch": by that of all rewards; "none": not at all, as in Dr. GRPO.

    Returns
    -------
    float Tensor of the same shape; a group of equal rewards has advantages of 0 throughout, and teaches nothing

    Raises
    ------
    LabError
        The rewards are not a whole number of groups, or a setting is out of range.

    Source: Shao et al. 2024 (DeepSeekMath). https://arxiv.org/abs/2402.03300

    One right answer of four, then four right ones:

    >>> group_advantages(torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 1]), 4)
    tensor([ 1.4997, -0.4999, -0.4999, -0.4999,  0.0000,  0.0000,  0.0000,  0.0000])
    """
    choose("scale", scale, SCALES)
    size = whole("group_size", group_size, 2)
    if rewards.dim() != 1 or not len(rewards) or len(rewards) % size:
        raise LabError(f"rewards has shape {tuple(rewards.shape)}: give one number per answer, {size} for each prompt.")
    groups = rewards.view(-1, size)
    advantages = groups - groups.mean(1, keepdim=True)
    if scale == "group":
        advantages = advantages / (groups.std(1, keepdim=True) + EPSILON)
    elif scale == "batch":
        advantages = advantages / (rewards.std() + EPSILON)
    return advantages.view(-1)


def token_losses(
    logprobs: Tensor, advantages: Tensor, old: Tensor | None = None, reference: Tensor | None = None,
    beta: float = 0.0, epsilon: float = 0.2, epsilon_high: float | None = None,
) -> Tensor:  # fmt: skip
    """What each token of each answer adds to the loss, before tokens are weighted.

    Parameters
    ----------
    logprobs : float Tensor, shape (answers, tokens), of the model that is trained
    advantages : float Tensor, shape (answers,); every token of an answer shares its advantage
    old : as logprobs, without gradient, of the model that sampled the answers. Default: it is the same model, as in the
        first update after sampling: the ratio is then 1 and only its gradient counts.
    reference : as logprobs, without gradient, of the reference model; needed where beta is not 0
    beta : float >= 0, weight of the distance from the reference (TRL's default 0 leaves the reference out)
    epsilon, epsilon_high : float > 0, the ratio gains nothing beyond [1 - epsilon, 1 + epsilon_high]; by default the
        second is as the first

    Returns
    -------
    float Tensor, shape (answers, tokens)

    Raises
    ------
    LabError
        A setting is out of range, or the reference is missing.

    Source: Shao et al. 2024 (DeepSeekMath). https://arxiv.org/abs/2402.03300

    A token whose probability has risen to 1.5 times what it was, in an answer of advantage 1, and in one of -1:

    >>> risen = torch.tensor([[1.5]]).log()
    >>> token_losses(risen, torch.tensor([1.0]), old=torch.zeros(1, 1))  # clipped at 1.2: nothing more to gain
    tensor([[-1.2000]])
    >>> token_losses(risen, torch.tensor([-1.0]), old=torch.zeros(1, 1))  # the wrong way: not clipped
    tensor([[1.5000]])
    """
    beta, epsilon = real("beta", beta, "a number of 0 or more", zero=True), real("epsilon", epsilon)
    high = epsilon if epsilon_high is None else real("epsilon_high", epsilon_high)
    ratio = (logprobs - (logprobs.detach() if old is None else old)).exp()
    gain = torch.min(ratio * advantages[:, None], ratio.clamp(1 - epsilon, 1 + high) * advantages[:, None])
    if not beta:
        return -gain
    if reference is None:
        raise LabError(f"beta={beta} weighs the distance from a reference model: give reference, or beta=0.")
    return beta * token_distances(logprobs, reference) - gain


def token_distances(logprobs: Tensor, reference: Tensor) -> Tensor:
    """An estimate of the KL divergence from the reference at each token, never below 0 and on average right.

    Parameters
    ----------
    logprobs, reference : float Tensors of one shape, of tokens that the model itself sampled

    Source: Schulman 2020, Approximating KL divergence, estimator k3. http://joschu.net/blog/kl-approx.html

    >>> token_distances(torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, -2.0]))
    tensor([0.0000, 0.3679])
    """
    ahead = reference - logprobs
    return ahead.exp() - ahead - 1


def token_weights(mask: Tensor, loss_type: str = "dapo", longest: int | None = None) -> Tensor:
    """How much each token counts: the choice in which GRPO's published versions differ.

    Parameters
    ----------
    mask : bool Tensor, shape (answers, tokens), True at the answers' own tokens (no prompt, no padding)
    loss_type : name in `LOSSES`
        "grpo": each answer counts the same, so a token of a long answer counts less. "dapo" and "bnpo": each token
        counts the same, 1 / tokens of the batch (TRL's "dapo" counts the tokens of all accumulated batches, "bnpo" of
        one; they differ only where gradients are accumulated). "dr_grpo": 1 / (answers · longest), the same
        whatever the lengths are.
    longest : int, room for an answer in tokens (TRL's max_completion_length); for "dr_grpo"

    Returns
    -------
    float32 Tensor of the mask's shape, 0 outside of it

    Raises
    ------
    LabError
        `loss_type` is unknown, or `longest` is missing.

    Source: Shao et al. 2024 (GRPO), https://arxiv.org/abs/2402.03300; Yu et al. 2025 (DAPO),
    https://arxiv.org/abs/2503.14476; Liu et al. 2025 (Dr. GRPO), https://arxiv.org/abs/2503.20783

    An answer of one token and one of three:

    >>> mask = torch.tensor([[True, False, False], [True, True, True]])
    >>> token_weights(mask, "grpo")
    tensor([[0.5000, 0.0000, 0.0000],
            [0.1667, 0.1667, 0.1667]])
    >>> token_weights(mask, "dapo")
    tensor([[0.2500, 0.0000, 0.0000],
            [0.2500, 0.2500, 0.2500]])
    """
    choose("loss_type", loss_type, LOSSES)
    inside = mask.float()
    if loss_type == "grpo":
        return inside / inside.sum(1, keepdim=True).clamp(min=1) / len(mask)
    if loss_type == "dr_grpo":
        if longest is None:
            raise LabError("loss_type='dr_grpo' divides by the room for an answer: give longest, in tokens.")
        return inside / (len(mask) * whole("longest", longest))
    return inside / inside.sum().clamp(min=1)


def grpo_loss(
    logprobs: Tensor, mask: Tensor, advantages: Tensor, old: Tensor | None = None, reference: Tensor | None = None, *,
    beta: float = 0.0, epsilon: float = 0.2, epsilon_high: float | None = None, loss_type: str = "dapo",
    longest: int | None = None,
) -> Tensor:  # fmt: skip
    """The loss of group relative policy optimization: `token_losses` · `token_weights`, added up.

    Parameters
    ----------
    logprobs, advantages, old, reference, beta, epsilon, epsilon_high : as in `token_losses`
    mask, loss_type, longest : as in `token_weights`

    Returns
    -------
    Tensor of one number

    Raises
    ------
    LabError
        As `token_losses` and `token_weights`.

    In the first update after sampling each ratio is 1, and a group's advantages add up to 0. So does the loss of
    answers that are equally long. Its gradient is what teaches:

    >>> logprobs = torch.tensor([[-1.0], [-2.0]], requires_grad=True)
    >>> loss = grpo_loss(logprobs, torch.ones(2, 1, dtype=torch.bool), torch.tensor([0.7, -0.7]))
    >>> loss.backward()
    >>> loss.item(), logprobs.grad
    (0.0, tensor([[-0.3500],
            [ 0.3500]]))
    """
    losses = token_losses(logprobs, advantages, old, reference, beta, epsilon, epsilon_high)
    return (losses * token_weights(mask, loss_type, longest)).sum()

"""Direct preference optimization: of two answers the better one becomes likelier than it was, the other less likely."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from ..errors import LabError, choose, real

LOSSES = ("sigmoid", "hinge", "ipo", "sigmoid_norm")  # TRL's names; sigmoid is its default and the paper's


@dataclass(frozen=True)
class Preferred:
    """What `dpo_loss` computes for a batch of pairs.

    Attributes
    ----------
    loss : Tensor of one number, the mean over the pairs
    chosen_rewards, rejected_rewards : Tensors, shape (pairs,), without gradient: the implicit reward of an answer,
        beta · (its log-probability - the reference's)
    """

    loss: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor

    @property
    def margins(self) -> Tensor:
        """How much more reward the chosen answer has than the rejected one, shape (pairs,)."""
        return self.chosen_rewards - self.rejected_rewards

    @property
    def accuracy(self) -> float:
        """The share of pairs whose chosen answer has the larger reward."""
        return float((self.margins > 0).float().mean())


def dpo_loss(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float = 0.1,
    loss_type: str = "sigmoid", lengths: tuple[Tensor, Tensor] | None = None,
) -> Preferred:  # fmt: skip
    """The loss of direct preference optimization, equal to TRL's `DPOTrainer`.

    Parameters
    ----------
    chosen, rejected : float Tensors, shape (pairs,): `sequence_logprobs` of the two answers, prompt left out
    reference_chosen, reference_rejected : the same of the reference model, without gradient
    beta : float > 0, how much a log-ratio counts. The larger, the sooner the loss is content, and the nearer the model
        stays to its reference. In "ipo" it is the paper's τ.
    loss_type : name in `LOSSES`
        "sigmoid", the paper's; "hinge" stops at a margin of 1; "ipo" wants a margin of exactly 1 / (2 beta);
        "sigmoid_norm" is "sigmoid" per token. The last two divide each log-ratio by the answer's tokens.
    lengths : (chosen, rejected), Tensors of shape (pairs,), tokens of the answers; for the last two

    Returns
    -------
    Preferred

    Raises
    ------
    LabError
        `loss_type` is unknown, `beta` is not above 0, or the lengths are missing.

    Source: Rafailov et al. 2023 (DPO). https://arxiv.org/abs/2305.18290

    Two answers were equally likely; the model has come to find the chosen one likelier by 0.5, the other less likely
    by as much. With beta = 0.1 the margin is 0.1, and the loss -log(sigmoid(0.1)):

    >>> from torch import tensor
    >>> found = dpo_loss(tensor([-2.0]), tensor([-3.0]), tensor([-2.5]), tensor([-2.5]), beta=0.1)
    >>> found.margins, found.loss
    (tensor([0.1000]), tensor(0.6444))
    """
    choose("loss_type", loss_type, LOSSES)
    beta = real("beta", beta)
    chosen_ratio = chosen - reference_chosen  # log (probability now / probability at the reference)
    rejected_ratio = rejected - reference_rejected
    if loss_type in ("ipo", "sigmoid_norm"):
        if lengths is None:
            raise LabError(f"loss_type={loss_type!r} divides by the answers' tokens: give lengths=(chosen, rejected).")
        difference = chosen_ratio / lengths[0] - rejected_ratio / lengths[1]
    else:
        difference = chosen_ratio - rejected_ratio
    of_each_pair = {
        "sigmoid": lambda: -logsigmoid(beta * difference),
        "sigmoid_norm": lambda: -logsigmoid(beta * difference),
        "hinge": lambda: (1 - beta * difference).relu(),
        "ipo": lambda: (difference - 1 / (2 * beta)) ** 2,
    }[loss_type]()
    return Preferred(of_each_pair.mean(), beta * chosen_ratio.detach(), beta * rejected_ratio.detach())

"""What makes posteriors of logits, whoever gave them."""

from torch import Tensor


def posteriors(logits: Tensor, multilabel: bool) -> Tensor:
    """Posteriors of ``logits`` [..., labels]: a sigmoid of each where a clip may have several
    labels, else a softmax over all of them."""
    return logits.sigmoid() if multilabel else logits.softmax(-1)

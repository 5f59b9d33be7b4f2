"""What the search minimises: the creative loss and the anchor loss (sections 5.2 and 5.3 of the paper)."""

import torch
from torch.nn import functional


def creative_loss(log_prob: torch.Tensor, target: float | None = None) -> torch.Tensor:
    """Eq. 5: the mean log-likelihood, in nats; minimising it moves embeddings to less likely places.

    The paper's loss has no lower bound: the log of a Gaussian falls with the square of the distance, so the further out,
    the harder the push. ``target`` gives it a floor: an embedding that is at least ``target`` nats surprising is pushed no
    further.

    Args:
        log_prob: (N,), from ``TypicalityModel.log_prob``.
        target: surprise in nats at which the push ends; ``None`` for the paper's loss.
    """
    return (log_prob if target is None else log_prob.clamp(min=-target)).mean()


def anchor_loss(embeddings: torch.Tensor, text_embedding: torch.Tensor) -> torch.Tensor:
    """Eq. 6: one minus the cosine between image embeddings (N, d) and the text embedding of P_pos (1, d), mean, 0 to 2."""
    if embeddings.shape[-1] != text_embedding.shape[-1]:
        raise ValueError(
            f"text_embedding: got width {text_embedding.shape[-1]}, the embeddings have {embeddings.shape[-1]}; "
            "both must come from one generator"
        )
    return (1 - functional.cosine_similarity(embeddings, text_embedding, dim=-1)).mean()

"""The prior by its own forward, for where ``CachedPrior`` may not go around it."""

from collections.abc import Sequence

import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from creativelib.text import TextCondition


def must_be_called(prior: torch.nn.Module) -> bool:
    """Whether something hangs on the prior's own forward, or on that of a block or its attention: hooks (offloading puts the
    weights in place by them), compiled code, or an attention that is not the plain one. ``CachedPrior`` calls none of these.
    Layers inside, also quantised ones and adapters, it calls as modules, so they are not in the way.
    """
    attentions = [block.attn1 for block in prior.transformer_blocks]
    modules = [prior, *prior.transformer_blocks, *attentions]
    return any(
        hasattr(module, "_hf_hook")
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._compiled_call_impl is not None
        or hasattr(module, "_orig_mod")  # of torch.compile(module)
        for module in modules
    ) or any(type(attention.processor) not in (AttnProcessor, AttnProcessor2_0) for attention in attentions)


class PlainPrior:
    """What ``CachedPrior`` computes, by calling the prior as diffusers does: every token of every sample at every step.

    Args:
        prior: diffusers' prior. conditions: C text conditions.
    """

    def __init__(self, prior: torch.nn.Module, conditions: Sequence[TextCondition]):
        self.prior, self.conditions = prior, conditions

    def __call__(self, noisy: torch.Tensor, timestep: int) -> torch.Tensor:
        """Predict the clean embeddings of ``noisy`` (N, d) under every condition, (C, N, d)."""
        n, dtype = len(noisy), self.prior.dtype
        predicted = [
            self.prior(
                noisy.to(dtype),
                timestep=timestep,
                proj_embedding=condition.text_embedding.to(dtype).expand(n, -1),
                encoder_hidden_states=condition.hidden_states.to(dtype).expand(n, -1, -1),
                attention_mask=condition.mask.expand(n, -1),
            ).predicted_image_embedding.to(noisy.dtype)
            for condition in self.conditions
        ]
        return torch.stack(predicted)

"""The prompt, sampled: what every other method has to beat."""

import torch

from creativelib.methods.method import Desk, Method


class Plain(Method):
    """P_pos as it is. Costs less than any budget that pays for another method."""

    name = "plain"
    description = "the prompt, sampled"

    def search(self, desk: Desk) -> tuple[torch.Tensor, None]:
        desk.release()
        return desk.sample(desk.noise_seeds), None

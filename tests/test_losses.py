"""Eqs. 5 and 6: values, signs and gradients."""

import pytest
import torch

from creativelib.losses import anchor_loss, creative_loss
from creativelib.typicality import TypicalityModel


def rows(n: int, d: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_minimising_the_creative_loss_makes_an_embedding_more_surprising():
    model = TypicalityModel.fit(rows(200), dims=4)
    point = rows(1, seed=1).requires_grad_()
    creative_loss(model.log_prob(point)).backward()
    moved = (point - 0.1 * point.grad).detach()
    assert float(model.surprise(moved)) > float(model.surprise(point.detach()))


def test_creative_loss_is_the_mean_log_likelihood_and_ends_at_a_target():
    log_prob = torch.tensor([-10.0, -30.0], requires_grad=True)
    assert float(creative_loss(log_prob.detach())) == -20.0
    loss = creative_loss(log_prob, target=25.0)
    assert loss.item() == -17.5
    loss.backward()
    assert log_prob.grad.tolist() == [0.5, 0.0]  # the one beyond the target is pushed no further


def test_anchor_loss_values():
    text = torch.tensor([[2.0, 0.0]])
    assert float(anchor_loss(torch.tensor([[5.0, 0.0]]), text)) == pytest.approx(0)
    assert float(anchor_loss(torch.tensor([[0.0, 1.0]]), text)) == pytest.approx(1)
    assert float(anchor_loss(torch.tensor([[-1.0, 0.0]]), text)) == pytest.approx(2)
    with pytest.raises(ValueError, match="^text_embedding: got width 3"):
        anchor_loss(torch.zeros(1, 2), torch.zeros(1, 3))


def test_gradients_by_finite_differences():
    model, text = TypicalityModel.fit(rows(200), dims=4), rows(1, seed=2)
    points = rows(3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: creative_loss(model.log_prob(e)), (points,))
    assert torch.autograd.gradcheck(lambda e: anchor_loss(e, text), (points,))

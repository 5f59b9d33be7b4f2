"""Weights in eight bits: what is lost, that it is little, and that damage is told."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from creativelib.frameworks import eight_bits


@pytest.fixture
def unet():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=16, attention_head_dim=2,
        ).eval()  # fmt: skip


def test_each_weight_is_off_by_half_a_step_of_its_own_output():
    state = {
        "matrix": torch.tensor([[1.27, -0.005, 0.0151], [100.0, 50.0, 0.3]]),
        "nothing": torch.zeros(2, 3, 3, 3),
        "bias": torch.tensor([0.1, 2.0]),
    }
    packed = eight_bits.pack(state)
    assert packed["matrix"].tolist() == [[127, 0, 2], [127, 64, 0]]  # halves go to the even number: -0.5 to 0, 1.51 to 2
    assert packed["matrix"].dtype == torch.int8 and packed["bias"].dtype == torch.float16
    again = eight_bits.unpack(packed)
    assert again.keys() == state.keys() and torch.equal(again["nothing"], state["nothing"])
    assert (again["matrix"] - state["matrix"]).abs().amax(1).le(state["matrix"].abs().amax(1) / 254 + 1e-6).all()
    torch.testing.assert_close(again["bias"], state["bias"], atol=1e-3, rtol=1e-3)


def test_a_unet_draws_the_same_from_a_quarter_of_its_file(unet, tmp_path):
    eight_bits.save_unet(unet, tmp_path / "small")
    unet.save_pretrained(tmp_path / "large")
    again = eight_bits.load_unet(tmp_path / "small")
    size = {path.parent.name: path.stat().st_size for path in tmp_path.rglob("*.safetensors")}
    assert size["small"] < 0.4 * size["large"]  # so small a UNet has many biases; of a large one a quarter is left
    source = torch.Generator().manual_seed(1)
    given = torch.randn(2, 4, 8, 8, generator=source), 999, torch.randn(2, 5, 16, generator=source)
    with torch.no_grad():
        first, second = (model(*given[:2], encoder_hidden_states=given[2]).sample for model in (unet, again))
    assert 0 < (first - second).norm() < 0.02 * first.norm()
    assert not again.training and again.dtype == torch.float32 and again.config.block_out_channels == [16, 32]
    once, twice = eight_bits.pack(again.state_dict()), eight_bits.pack(eight_bits.unpack(eight_bits.pack(again.state_dict())))
    assert all(torch.equal(once[name], twice[name]) for name in once if "scale" not in name)  # rounded once, it stays


def test_weights_of_another_unet_are_refused(unet, tmp_path):
    eight_bits.save_unet(unet, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace("32\n", "64\n"))
    with pytest.raises(RuntimeError, match="size mismatch"):
        eight_bits.load_unet(tmp_path)

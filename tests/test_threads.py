import pytest
import torch
from torch import nn

from creativelib import threads


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_one_thread_for_a_while_even_after_an_error(two_threads):
    with threads.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(RuntimeError, match="broken"), threads.one_thread():
        raise RuntimeError("broken")
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("parameters", "device", "expected"), [(100, "cpu", 1), (threads.SMALL, "cpu", 2), (100, "meta", 2)])
def test_a_second_thread_only_where_it_has_something_to_do(two_threads, parameters, device, expected):
    network = nn.Module()
    network.weight = nn.Parameter(torch.empty(1, device=device).expand(parameters))  # takes no memory
    with threads.threads_for_one(network):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 2


def test_a_step_of_a_small_model_takes_one_thread(two_threads, make, monkeypatch):
    run, seen = make(), []
    sample = run.space.sample

    def watched(*args, **options):
        seen.append(torch.get_num_threads())
        return sample(*args, **options)

    monkeypatch.setattr(run.space, "sample", watched)
    run.step()
    assert seen == [1] and torch.get_num_threads() == 2

"""Ctrl-C at the worst moment: what belongs together is done as a whole."""

import signal
import threading

import pytest
import torch
from runs import alike

from creativelib.run import CreativeRun
from creativelib.spaces import LoRA, make_space


@pytest.fixture(autouse=True)
def listening():
    """A program that was started in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_between_the_update_and_its_row_in_the_history(make, monkeypatch, tmp_path):
    """The parameters are one step ahead of the history then, and that step would be done twice."""
    straight, run, update = make().run(4, progress=False), make(), torch.optim.AdamW.step

    def interrupted(optimizer, *arguments):
        update(optimizer, *arguments)
        if run.steps == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run(4, progress=False, folder=tmp_path)
    monkeypatch.undo()
    again = CreativeRun.load(tmp_path, generator=run.generator)
    assert alike(again.run(4, progress=False), straight) and alike(run.run(4, progress=False), straight)


def test_ctrl_c_while_adapters_are_hung_in_leaves_the_generator_as_it_was(small_generator, monkeypatch):
    space, modules = make_space("lora", small_generator, "vehicle"), [*small_generator.prior.modules()]
    place, other = space._slots[:2]

    class Place:
        """The first of the modules that hold an adapter; when it gets it, somebody presses Ctrl-C."""

        def __init__(self, parent):
            object.__setattr__(self, "parent", parent)

        def __getattr__(self, name):
            return getattr(self.parent, name)

        def __setattr__(self, name, value):
            setattr(self.parent, name, value)
            if value is place[2]:
                signal.raise_signal(signal.SIGINT)

    space._slots[0] = (Place(place[0]), *place[1:])
    with pytest.raises(KeyboardInterrupt):
        space.sample([1])
    assert [*small_generator.prior.modules()] == modules and other[2] not in modules


def test_in_another_thread_nothing_is_changed(small_generator):
    """Only the main thread may say what a signal does."""
    space, found = LoRA(small_generator, "vehicle"), []
    thread = threading.Thread(target=lambda: found.append(space.sample([1]).detach()))
    thread.start()
    thread.join()
    assert torch.equal(found[0], space.sample([1]))

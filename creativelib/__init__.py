"""Creative image generation with diffusion models: the tested package behind the notebooks."""

import importlib
import os
import sys

__version__ = "0.1.0"

# By default PyTorch's threads wait for each other by spinning, and beside any busy program every small step takes many times
# its time. OpenMP reads this variable once, while PyTorch is loaded; check_environment says where that came too early.
torch_came_first = "torch" in sys.modules and "OMP_WAIT_POLICY" not in os.environ
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_HOMES = {  # what a script of ten lines needs, in the order in which it needs it
    "check_environment": "creativelib.environment",
    "load_generator": "creativelib.generator",
    "load_one_step": "creativelib.frameworks.loading",
    "positive_prompt": "creativelib.text",
    "sample_prior": "creativelib.prior_sampling",
    "TypicalityModel": "creativelib.typicality",
    "make_space": "creativelib.spaces",
    "AlternatingRule": "creativelib.pullback",
    "SumRule": "creativelib.pullback",
    "load_checker": "creativelib.pullback",
    "NegativeCluster": "creativelib.directions",
    "CreativeRun": "creativelib.run",
    "before_after": "creativelib.figures",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str):
    """Import the home of an exported name when it is first used, so that ``import creativelib`` is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it exports {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

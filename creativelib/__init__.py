"""Creative image generation with diffusion models: the tested package behind the notebooks."""

import importlib

__version__ = "0.1.0"

_HOMES = {  # what a script of ten lines needs, in the order in which it needs it
    "check_environment": "creativelib.environment",
    "load_generator": "creativelib.generator",
    "positive_prompt": "creativelib.generator",
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

"""Whether the parts of a search belong together: all of one generator and one subject."""

import warnings

from creativelib.generator import positive_prompt
from creativelib.prior_sampling import sample_prior
from creativelib.searchable import Searchable
from creativelib.spaces import ConceptualSpace
from creativelib.typicality import TypicalityModel

PLAIN_SAMPLES = 16  # what a typicality model of unknown origin is tried on
# Times the squared distance that samples of one Gaussian have. Measured with the shipped model, 9 subjects, 400 samples each:
# 0.6 to 0.8 for others of the same subject, 0.6 to 1.7 for near ones (car and vehicle, cat and pet), 1.85 to 8 for the rest.
FAR = 1.5


def require_one_subject(
    generator: Searchable, subject: str, space: ConceptualSpace, typicality: TypicalityModel, sampling: dict
) -> None:
    """Refuse parts that do not belong together.

    A typicality model says in its provenance what it was fitted to. One that does not say is tried on plain samples of the
    subject, and there is a warning, as a near subject would not be noticed.

    Args:
        sampling: steps and guidance of the prior.

    Raises:
        ValueError: names the part, what it is of, and what it should be of.
    """
    prompt, baseline = positive_prompt(subject), typicality.provenance
    if space.generator is not generator:
        raise ValueError("space: it belongs to another generator; make it with the one that is given")
    if positive_prompt(space.subject) != prompt:
        raise ValueError(f"space: it is one of {space.subject!r}, not of {subject!r}; make one of the subject")
    for key, own in (("prompt", prompt), ("model", generator.name), ("weights", generator.sampling_weights)):
        if key in baseline and baseline[key] != own:
            raise ValueError(
                f"typicality: the {key} of its baseline is {baseline[key]!r}, not {own!r}; fit one to the subject's"
            )
    if len(typicality.mean) != generator.embedding_dim:
        raise ValueError(
            f"typicality: it is of embeddings of width {len(typicality.mean)}, the generator's have "
            f"{generator.embedding_dim}; fit one to samples of this generator"
        )
    if "prompt" not in baseline:
        _require_near(generator, prompt, typicality, sampling)
        warnings.warn(
            "typicality: it does not say what it was fitted to, so that one of a subject nearby would not be noticed; fit it "
            "with provenance=samples.provenance",
            stacklevel=4,
        )


def _require_near(generator: Searchable, prompt: str, typicality: TypicalityModel, sampling: dict) -> None:
    """Refuse a model to which plain samples of the prompt are far away, which those that it was fitted to cannot be."""
    dims, n = typicality.dims, typicality.n
    if n <= dims + 2:  # from so few, nothing is known of how far others are
        return
    plain = sample_prior(generator, prompt, n=PLAIN_SAMPLES, **sampling, progress=False).embeddings
    distance = float(typicality.mahalanobis_squared(plain).median())
    expected = dims * (n - 1) / (n - dims - 2)  # of samples that are not among the n (Hotelling)
    if not distance <= FAR * expected:
        raise ValueError(
            f"typicality: plain samples of {prompt!r} are at a squared distance of {distance:.0f} from its baseline, where at "
            f"most {expected:.0f} is usual: it is of another subject, or of samples made otherwise; fit one to samples of this "
            "one, or, if it is meant so, say what it is for by provenance={'prompt': positive_prompt(subject)}"
        )

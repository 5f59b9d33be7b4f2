"""VLM-guided adaptive negative prompting (Golan et al., ICLR 2026): while it samples, the model is told what not to draw.

At every denoising step the predicted clean embedding is drawn, the checker is asked what kind of thing it sees, and the answer
joins a growing negative prompt, which takes the place of the empty one in classifier-free guidance. Nothing is trained. The
paper does this in the latents of SD3.5; here the prior predicts an image embedding, which any step can have decoded.
"""

import torch
from PIL import Image

from creativelib.generator import Generator
from creativelib.methods.asking import KIND, readable
from creativelib.methods.budget import Cost, sample_cost
from creativelib.methods.denoising import denoise, guided
from creativelib.methods.method import Desk, Method, truth
from creativelib.prior_sampling import CachedPrior

LOOK = Cost(decodes=1, questions=1)


class NegativePrompting(Method):
    """Every result has a negative prompt of its own. The questions that the budget pays are shared out among the results, and
    asked at their first steps, where the drawing is decided.

    Args:
        inherit: whether a result starts with the negatives of the one before it, so that results differ from each other too.
    """

    name = "negative-prompting"
    asks = True
    description = "the kinds that the checker sees while sampling become the negative prompt"

    def __init__(self, inherit: bool = False):
        self.inherit = truth("inherit", inherit)

    def price(self, generator: Generator) -> Cost:
        """Sampling, one look, and the picture."""
        return sample_cost(generator) + LOOK + Cost(decodes=1)

    def search(self, desk: Desk) -> tuple[torch.Tensor, list[Image.Image]]:
        rows, images, found = [], [], []
        desk.release()
        final = sample_cost(desk.generator) + Cost(decodes=1)
        looks = (desk.meter.left - desk.results * final).fits(LOOK) // desk.results
        for seed in desk.noise_seeds:
            negatives = list(found[-1]) if self.inherit and found else []
            rows.append(self.sample(desk, seed, negatives, looks))
            found.append(negatives)
            images += desk.decode(rows[-1], [seed])
        desk.facts |= {"negatives": found, "looks": min(looks, desk.generator.settings.prior_steps - 1)}
        return torch.cat(rows), images

    @torch.no_grad()
    def sample(self, desk: Desk, seed: int, negatives: list[str], looks: int) -> torch.Tensor:
        """One embedding (1, d); ``negatives`` grows with each of the ``looks``."""
        generator, question = desk.generator, KIND.format(subject=desk.subject.words.strip())
        prompt, done = {"of": None, "prior": None}, []

        def predict(latents: torch.Tensor, time: int, following: int | None) -> torch.Tensor:
            if prompt["of"] != negatives:
                away = generator.encode_text(fitting(generator, negatives))
                prompt.update(of=list(negatives), prior=CachedPrior(generator.prior, [away, desk.subject.condition]))
            clean = guided(generator, prompt["prior"], latents, time)
            if following is not None and len(done) < looks:  # the answer to the last prediction would come too late
                (image,) = desk.decode(generator.prior.post_process_latents(clean), [seed])
                done.append(desk.ask(image, question))
                if done[-1] and done[-1] not in negatives:
                    negatives.append(done[-1])
            return clean

        desk.meter.charge(sample_cost(generator))
        return denoise(generator, seed, predict)


def fitting(generator: Generator, negatives: list[str]) -> str:
    """The negative prompt: as many of the newest as the text encoder can read."""
    for start in range(len(negatives)):
        prompt = ", ".join(negatives[start:])
        if readable(generator, "{token}", prompt) == prompt:
            return prompt
    return readable(generator, "{token}", negatives[-1]) if negatives else ""

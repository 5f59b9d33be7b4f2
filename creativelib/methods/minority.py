"""MinorityPrompt (Um and Ye, CVPR 2025): a token, appended to the prompt, is tuned while sampling towards what is rarely drawn.

At every step, a few times: predict the clean latents with the token, noise them again, predict them once more with the plain
prompt; the further apart the two predictions, the less the model expects such a picture. Adam raises that distance.
"""

import torch

from creativelib.arguments import finite_number, plain_words, whole_number
from creativelib.generator import Generator
from creativelib.methods.budget import BACKWARD, Cost, sample_cost
from creativelib.methods.denoising import denoise, guided
from creativelib.methods.method import Desk, Method
from creativelib.prior_sampling import CachedPrior
from creativelib.seeds import derive_seed

TOKEN = "<rare>"


def minority_metric(clean: torch.Tensor, again: torch.Tensor, weight: float = 1.0) -> torch.Tensor:
    """|sg(clean) - again| + weight |clean - sg(again)|, (N,): the two distances are equal, their gradients are not.

    ``clean`` (N, d) is predicted from the noisy latents with the token, ``again`` from the same clean latents, noised anew,
    with the plain prompt; sg stops the gradient.
    """
    return (clean.detach() - again).norm(dim=-1) + weight * (clean - again.detach()).norm(dim=-1)


class Minority(Method):
    """Every result has a token of its own, which stays from step to step.

    Args:
        iterations: of Adam at each denoising step; 3 as published.
        rate: learning rate; 0.01 as published.
        word: whose token the new one starts as; in the released example, about a chef, "handsome".
        weight: of the second distance; 1 as published.
    """

    name = "minority"
    description = "MinorityPrompt: a token tuned while sampling towards what is rarely drawn"

    def __init__(self, iterations: int = 3, rate: float = 0.01, word: str = "creative", weight: float = 1.0):
        self.iterations, self.rate = whole_number("iterations", iterations, 1), finite_number("rate", rate, above=0)
        self.word, self.weight = plain_words("word", word, "creative"), finite_number("weight", weight)

    def price(self, generator: Generator) -> Cost:
        # two unguided predictions an iteration; the last step, at no noise, is not tuned
        tuning = 2 * BACKWARD * self.iterations * (generator.settings.prior_steps - 1)
        return sample_cost(generator) + Cost(prior=tuning, decodes=1)

    def search(self, desk: Desk) -> tuple[torch.Tensor, None]:
        desk.release()
        rows, metrics = [], []
        for seed in desk.noise_seeds:
            desk.meter.charge(self.price(desk.generator) - Cost(decodes=1))
            row, metric = self.sample(desk, seed)
            rows.append(row)
            metrics.append(metric)
        desk.facts["metric"] = metrics
        return torch.cat(rows), None

    def sample(self, desk: Desk, seed: int) -> tuple[torch.Tensor, list[float]]:
        """One embedding (1, d), and the metric before every update."""
        generator = desk.generator
        prompt, scheduler = f"{desk.subject.prompt} {TOKEN}", generator.scheduler
        token = torch.nn.Parameter(generator.word_embedding(self.word))
        plain = CachedPrior(generator.prior, [desk.subject.condition])
        noise = torch.Generator().manual_seed(derive_seed(seed, "noised again"))
        steps, metrics = scheduler.config.num_train_timesteps, []

        def predict(latents: torch.Tensor, time: int, following: int | None) -> torch.Tensor:
            latents = latents.detach()
            back = steps - 1 - (following or 0)  # the nearer to the picture, the more it is noised again
            alpha = scheduler.alphas_cumprod[back].to(latents)
            optimizer = torch.optim.Adam([token], lr=self.rate)
            for _ in range(self.iterations if time > 0 else 0):
                sought = CachedPrior(generator.prior, [generator.encode_text(prompt, {TOKEN: token})])
                clean = sought(latents, time)[0]
                fresh = torch.randn(clean.shape, generator=noise).to(clean)
                again = plain(alpha.sqrt() * clean + (1 - alpha).sqrt() * fresh, back)[0]
                metric = minority_metric(clean, again, self.weight)
                optimizer.zero_grad()
                (-metric.sum()).backward()
                optimizer.step()
                metrics.append(round(float(metric.detach().sum()), 6))
            with torch.no_grad():
                condition = generator.encode_text(prompt, {TOKEN: token})
                return guided(generator, CachedPrior(generator.prior, [generator.unconditional, condition]), latents, time)

        return denoise(generator, seed, predict), metrics

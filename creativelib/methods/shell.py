"""Off the typicality model itself: a point at a chosen distance, decoded. The prior is not asked at all."""

import torch
from PIL import Image

from creativelib.arguments import finite_number
from creativelib.generator import Generator
from creativelib.methods.budget import Cost
from creativelib.methods.method import Desk, Method, truth
from creativelib.methods.tail import choose
from creativelib.seeds import derive_seed
from creativelib.typicality import TypicalityModel


def shell_point(typicality: TypicalityModel, nats: float, seed: int) -> torch.Tensor:
    """An embedding (1, d), ``nats`` above the expected surprise, in a direction that is uniform in whitened coordinates.

    Surprise is half the squared Mahalanobis distance plus a constant, and the expected one has distance ``dims``: so the point
    lies at the squared distance dims + 2 nats.
    """
    direction = torch.randn(typicality.dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    radius = (typicality.dims + 2 * nats) ** 0.5
    coordinates = radius * direction / direction.norm() * typicality.variances.sqrt()
    return (typicality.mean + coordinates @ typicality.components).float()[None]


class Shell(Method):
    """A sample of the Gaussian at a chosen distance.

    Args:
        nats: above the expected surprise of a plain sample.
        checked: draw and ask until the checker accepts enough, as far as the budget goes; else the first ones are taken.
    """

    name = "shell"
    paired = False
    description = "points of the Gaussian at a chosen distance, decoded"

    def __init__(self, nats: float = 40.0, checked: bool = True):
        self.nats, self.checked = finite_number("nats", nats, hint="at least 0, for example 40"), truth("checked", checked)
        if not 0 <= self.nats < 1e6:
            raise ValueError(f"nats: got {nats!r}; give a number of at least 0, for example 40")
        self.asks = self.checked

    @property
    def settings(self) -> dict:
        return {"nats": self.nats, "checked": self.checked}

    def price(self, generator: Generator) -> Cost:
        return Cost(decodes=1, questions=int(self.checked))

    def search(self, desk: Desk) -> tuple[torch.Tensor, list[Image.Image] | None]:
        desk.release()

        def point(number: int) -> tuple[torch.Tensor, int, int]:
            seed = derive_seed(desk.seed, "shell", number)
            return shell_point(desk.subject.typicality, self.nats, seed), seed, number

        if not self.checked:
            points = [point(number) for number in range(desk.results)]
            desk.noise_seeds = [seed for _, seed, _ in points]
            return torch.cat([embedding for embedding, _, _ in points]), None
        most = desk.meter.left.fits(Cost(decodes=1, questions=1))
        chosen = choose(desk, (point(number) for number in range(most)))
        desk.noise_seeds = [point(number)[1] for _, _, _, number in chosen]
        return torch.cat([embedding for _, _, embedding, _ in chosen]), [image for _, image, _, _ in chosen]

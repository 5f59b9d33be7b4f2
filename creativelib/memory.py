"""What lies in a device's memory, and when: a ledger that a generator follows, so that the published sizes fit a small card.

The prior, whose adapters are searched, stays on the device. The others (text encoder, image encoder, decoder, checker) are
guests: each comes when it is used and stays, until another needs the room; then the one that was not used for the longest time
waits in the computer's own memory. Without a limit nobody has to leave.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from accelerate.utils import send_to_device
from diffusers.models.autoencoders.vae import DecoderOutput

GIB = 2**30
RESERVE = 0.75 * GIB  # of a card's memory, for CUDA itself and what is lost between blocks
FRAGMENTS = 0.35 * GIB  # the latter alone
UNITS = {"GB": 10**9, "GIB": GIB, "MB": 10**6, "MIB": 2**20}

# What the decoder's work takes at 512 pixels in half precision, computed with fake tensors from the published configurations.
UNET_WORK, UNET_WORK_PER_IMAGE = 0.55 * GIB, 0.0875 * GIB
MOVQ_WORK_PER_IMAGE = 0.63 * GIB
GUEST_WORK = 0.7 * GIB  # of an image encoder that looks at 64 pictures, the larger one; a checker's is less
PRIOR_WORK_PER_SAMPLE = 0.002 * GIB  # in half precision, of a prompt of the greatest length
ONE_STEP_WORK_PER_IMAGE = 0.75 * GIB  # of the VAE of Stable Diffusion at 512 pixels, in float32
ENOUGH = 2 * GIB  # of the decoder's work at once: 16 images; more room makes it no faster


def memory_limit(memory: str | float | None, device: torch.device) -> float:
    """How many bytes may be used.

    Args:
        memory: ``"12GB"``, ``"11.5GiB"``, a number of bytes, or ``None``: of a GPU all that other programs (a desktop, for
            one) have left, and no limit elsewhere. A card's memory is not all for us: ``RESERVE`` is taken off.

    Raises:
        ValueError: it says no amount of memory.
    """
    if memory is None:
        return _card_limit(device) if device.type == "cuda" else math.inf
    found = re.fullmatch(r"\s*([\d.]+)\s*([GM]i?B)\s*", memory, flags=re.IGNORECASE) if isinstance(memory, str) else None
    try:
        size = float(found[1]) * UNITS[found[2].upper()] if found else float(memory)
    except (TypeError, ValueError):
        size = math.nan
    if isinstance(memory, bool) or not size > RESERVE:
        raise ValueError(f"memory: got {memory!r}; give an amount such as '12GB', more than {RESERVE / GIB:g} GiB")
    return size - RESERVE


def _card_limit(device: torch.device) -> float:
    """What a card has for this process: what is free, and what PyTorch holds here already.

    CUDA's own memory is no longer free when it is asked, so that only ``FRAGMENTS`` are taken off then.

    Raises:
        ValueError: other programs have nearly all of it.
    """
    free, total = torch.cuda.mem_get_info(device)
    ours = free + torch.cuda.memory_reserved(device)
    limit = min(total - RESERVE, ours - FRAGMENTS)
    if limit <= 0:
        raise ValueError(
            f"memory: other programs have all but {ours / GIB:.1f} of the {total / GIB:.1f} GiB of {device}; end them, or use "
            "device='cpu'"
        )
    return limit


@dataclass
class Part:
    """One part of a generator: its modules move together.

    Attributes:
        stays: it is always on the device. bytes: of its weights. there: it is on the device now.
    """

    name: str
    modules: Sequence[torch.nn.Module]
    stays: bool = False
    there: bool = False
    bytes: int = field(init=False)

    def __post_init__(self):
        tensors = [tensor for module in self.modules for tensor in (*module.parameters(), *module.buffers())]
        self.bytes = sum(tensor.nbytes for tensor in {id(tensor): tensor for tensor in tensors}.values())


class Ledger:
    """Which parts are on ``device``, and what there is room for.

    Args:
        limit: bytes that all of it may take, see ``memory_limit``; infinite for no limit.

    Attributes:
        parts: by name, the one used last at the end.
        most: bytes of weights that were on the device at once, so far.
    """

    home = torch.device("cpu")  # where guests wait

    def __init__(self, device: torch.device, limit: float = math.inf):
        self.device, self.limit, self.parts, self.most = device, limit, {}, 0

    def keep(self, name: str, *modules: torch.nn.Module) -> None:
        """Put a part on the device for good.

        Raises:
            ValueError: what has to stay there is more than the limit.
        """
        part = Part(name, modules, stays=True)
        needed = part.bytes + self.bytes()
        if needed > self.limit:
            raise ValueError(
                f"memory: {self.limit / GIB:.1f} GiB are too few for {' and '.join([*self.parts, name])}, which take "
                f"{needed / GIB:.1f} GiB; use a smaller model ('pocket'), or device='cpu'"
            )
        self.parts[name] = part
        self._bring(part)

    def guest(self, name: str, *modules: torch.nn.Module) -> None:
        """Enter a part that is brought to the device when it is used."""
        self.parts[name] = Part(name, modules)

    def guest_when_called(self, name: str, module: torch.nn.Module) -> None:
        """Enter a guest that looks after itself: it is brought when its forward, or its ``generate``, is called, and what it is
        given follows it. It takes the place of another guest of that name, which comes back if it is called.

        For a checker, see ``load_checker(..., memory=generator.memory)``.
        """
        part = Part(name, [module])

        def come(arguments: tuple, options: dict) -> tuple:
            self._enter(part)
            return send_to_device(arguments, self.device), send_to_device(options, self.device)

        module.register_forward_pre_hook(lambda module, arguments, options: come(arguments, options), with_kwargs=True)
        if hasattr(module, "generate"):  # it adds to what it is given before it calls forward
            generate = module.generate

            def generate_there(*arguments, **options):
                arguments, options = come(arguments, options)
                return generate(*arguments, **options)

            module.generate = generate_there
        self._enter(part)

    def _enter(self, part: Part) -> None:
        """Have this part on the device, in the place of another of its name."""
        other = self.parts.get(part.name)
        if other is not part:
            if other is not None and other.there:
                self._send_home(other)
            self.parts[part.name] = part
        self.need(part.name)

    def same_device(self, device: str | torch.device | None) -> torch.device:
        """The device, which ``device`` may say again.

        Raises:
            ValueError: it says another one.
        """
        if device is not None and _place(torch.device(device)) != _place(self.device):
            raise ValueError(f"device: got {str(device)!r}, but the memory is that of {str(self.device)!r}; leave one out")
        return self.device

    def bytes(self) -> int:
        """Of the weights that are on the device now."""
        return sum(part.bytes for part in self.parts.values() if part.there)

    def room(self, *names: str) -> float:
        """Bytes that are left for work while the parts ``names`` are on the device, when other guests make room."""
        return self.limit - sum(part.bytes for part in self.parts.values() if part.stays or part.name in names)

    def need(self, *names: str, work: float = GUEST_WORK) -> None:
        """Have the parts ``names`` on the device, and ``work`` bytes free beside them if that can be.

        Raises:
            torch.OutOfMemoryError: the device has no room all the same. What came of a part is away again, and can come later.
        """
        coming = sum(self.parts[name].bytes for name in names if not self.parts[name].there)
        for part in self.parts.values():  # the one that was not used for the longest time first
            leaves = part.there and not part.stays and part.name not in names
            if leaves and self.bytes() + coming + work > self.limit:
                self._send_home(part)
        for name in names:
            part = self.parts[name] = self.parts.pop(name)
            if not part.there:
                self._bring(part)

    def _bring(self, part: Part) -> None:
        try:
            for module in part.modules:
                module.to(self.device)
        except torch.OutOfMemoryError:
            self._send_home(part)
            raise
        part.there = True
        self.most = max(self.most, self.bytes())

    def _send_home(self, part: Part) -> None:
        for module in part.modules:
            module.to(self.home)
        part.there = False
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # else the blocks stay with this process, of a size that may fit nothing

    def __str__(self) -> str:
        """A table: part, GiB, dtype, where."""
        limit = "no limit" if self.limit == math.inf else f"limit {self.limit / GIB:.2f} GiB"
        rows = [
            f"{part.name:14} {part.bytes / GIB:6.2f} GiB  {_dtype(part):9} "
            f"{'stays' if part.stays else 'guest'} {'on ' + str(self.device) if part.there else 'waits'}"
            for part in self.parts.values()
        ]
        return "\n".join([*rows, f"{'on the device':14} {self.bytes() / GIB:6.2f} GiB  ({limit})"])


def _place(device: torch.device) -> tuple[str, int]:
    return device.type, device.index or 0


def _dtype(part: Part) -> str:
    dtypes = {str(parameter.dtype).removeprefix("torch.") for module in part.modules for parameter in module.parameters()}
    return "/".join(sorted(dtypes))


def decoder_work(room: float, most: int, side: int, dtype: torch.dtype) -> tuple[int, int, float]:
    """How many images of ``side`` pixels the UNet can draw at once in ``room`` bytes, at most ``most``, how many MoVQ can
    decode, and the bytes that the larger of the two takes. One of each is tried where even that has no room.
    """
    scale, room = (side / 512) ** 2 * dtype.itemsize / 2, min(room, ENOUGH)
    drawn = max(1, min(most, math.floor((room / scale - UNET_WORK) / UNET_WORK_PER_IMAGE)))
    decoded = max(1, min(most, math.floor(room / scale / MOVQ_WORK_PER_IMAGE)))
    return drawn, decoded, scale * max(UNET_WORK + drawn * UNET_WORK_PER_IMAGE, decoded * MOVQ_WORK_PER_IMAGE)


def in_batches(decode: Callable, at_once: Callable[[], int]) -> Callable:
    """MoVQ's ``decode``, ``at_once()`` latents at a time: it takes far more memory than all that comes before it."""

    def decode_in_batches(latents: torch.Tensor, return_dict: bool = True, **options):
        parts = [decode(part, return_dict=True, **options).sample for part in latents.split(at_once())]
        sample = torch.cat(parts)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    return decode_in_batches

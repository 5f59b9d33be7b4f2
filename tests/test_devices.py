"""No operation mixes devices: a generator on a device that is not the CPU, which has shapes and no values, under a mode that
raises where tensors of two devices meet, or where a device is given float64, which Apple's have not.
"""

import math
from functools import partialmethod
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, KandinskyPipeline, KandinskyV22Pipeline
from miniature import SIDE
from miniature_one_step import build_one_step_folder
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from creativelib import cli
from creativelib.directions import NegativeCluster
from creativelib.frameworks.loading import load_one_step
from creativelib.full_size import FAMILIES, FullSize
from creativelib.generator import load_generator, positive_prompt
from creativelib.losses import anchor_loss, creative_loss
from creativelib.plain_prior import PlainPrior
from creativelib.prior_sampling import noise_sources, sample_embeddings
from creativelib.pullback import load_checker
from creativelib.run import CreativeRun
from creativelib.spaces import make_space
from creativelib.typicality import TypicalityModel
from creativelib.typicality_alternatives import KDETypicality, MixtureTypicality

META, PROMPT = torch.device("meta"), positive_prompt("vehicle")
COPIES = ("_to_copy", "copy_")  # what may bring tensors from one device to another


class OneDevice(TorchDispatchMode):
    """Raises where tensors of two devices meet, and at float64 off the CPU; a CPU's single numbers may meet any, as on a GPU.

    What is copied to the CPU, or read as a number, has values there: random ones between 0 and 1.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.ndim or tensor.device.type != "cpu"}
        if len(devices) > 1 and name not in COPIES:
            raise RuntimeError(f"{func}: tensors on {' and '.join(sorted(devices))}")
        if name == "_local_scalar_dense" and args[0].is_meta:
            result = self.read(args[0].dtype, ()).item()
        elif name == "_to_copy" and args[0].is_meta and torch.device(kwargs.get("device") or META).type == "cpu":
            result = self.read(kwargs.get("dtype") or args[0].dtype, args[0].shape)
        elif name == "copy_" and args[1].is_meta and not args[0].is_meta:
            result = args[0].copy_(self.read(args[0].dtype, args[1].shape))
        else:
            result = func(*args, **kwargs)
        if any(leaf.is_meta and leaf.dtype == torch.float64 for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)):
            raise RuntimeError(f"{func}: float64 on {META}")
        return result

    @staticmethod
    def read(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(math.prod(shape))).to(dtype)


@pytest.fixture
def away(generator, miniature_folders, monkeypatch):
    """The miniature of each family on the other device, which is refused to everybody else."""
    monkeypatch.setattr("creativelib.generator.find_device", torch.device)
    return load_generator(miniature_folders[generator.name], device=META)


def test_the_mode_raises_on_a_mix():
    far = torch.empty(2, 2, device=META)
    with OneDevice():
        assert (far * torch.tensor(2.0)).is_meta and far.copy_(torch.ones(2, 2)).is_meta
        for mix in (lambda: far + torch.ones(2, 2), lambda: torch.cat([far, torch.ones(2, 2)]), lambda: far @ torch.ones(2, 2)):
            with pytest.raises(RuntimeError, match="tensors on cpu and meta"):
                mix()
        for wide in (lambda: far.double(), lambda: torch.ones(2).double().to(META)):
            with pytest.raises(RuntimeError, match="float64 on meta"):
                wide()
        assert torch.ones(2).double().to(META, torch.float32).is_meta  # as ``copy_`` to such a device does it, on the CPU
        assert 0 < float(far.sum()) < 1 and 0 < far.cpu().double().min() < far.cpu().max() < 1


@pytest.mark.parametrize("gradients", [True, False])
def test_samples_of_the_prior(gradients, away):
    with OneDevice(), torch.set_grad_enabled(gradients):
        for prompt in (PROMPT, ""):
            rows = sample_embeddings(away, away.encode_text(prompt), noise_sources([1, 2]))
            assert (rows.shape, rows.device) == ((2, away.embedding_dim), META)


def test_the_prior_by_its_own_forward(away):
    with OneDevice(), torch.no_grad():
        predict = PlainPrior(away.prior, [away.unconditional, away.encode_text(PROMPT)])
        assert predict(torch.empty(3, away.embedding_dim, device=META), 499).shape == (2, 3, away.embedding_dim)


def space_on(name, away, generator):
    """A space of ``away``. Those with new tokens compare ids when they are made, which have no values there: they are moved."""
    if name in ("lora", "embedding"):
        return make_space(name, away, "vehicle")
    space = make_space(name, generator, "vehicle")
    space.generator, space.positive = away, away.encode_text(PROMPT)
    space._parameters = {key: torch.nn.Parameter(tensor.detach().to(META)) for key, tensor in space._parameters.items()}
    return space


@pytest.mark.parametrize("name", ["lora", "subject-token", "adjective-token", "embedding"])
def test_a_step_of_each_space(name, away, generator):
    """As ``Search.step`` computes it, up to the numbers that are read from it."""
    rows = torch.randn(60, away.embedding_dim, generator=torch.Generator().manual_seed(0))
    typicality = TypicalityModel.fit(rows, dims=6)
    space = space_on(name, away, generator)
    optimizer = torch.optim.AdamW(space.parameters(), lr=1e-3)
    with OneDevice():
        embedding = space.sample([1])
        loss = creative_loss(typicality.log_prob(embedding)) + anchor_loss(embedding, away.text_embedding(PROMPT, "prior"))
        loss.backward()
        optimizer.step()
        typicality.residual_energy(embedding.detach())
    assert all(parameter.grad.is_meta for parameter in space.parameters() if parameter.grad is not None)
    assert any(parameter.grad is not None for parameter in space.parameters())


def test_a_step_of_a_one_step_model(tmp_path, monkeypatch):
    monkeypatch.setattr("creativelib.frameworks.loading.find_device", torch.device)
    model = load_one_step(build_one_step_folder(tmp_path), device=META)
    space = make_space("lora", model, "vehicle")
    with OneDevice():
        embedding = space.sample([1, 2])
        (embedding.sum() + anchor_loss(embedding, model.text_embedding(PROMPT))).backward()
        assert model.encode_images([Image.new("RGB", (40, 32))]).is_meta
    assert all(parameter.grad.is_meta for parameter in space.parameters())


@pytest.fixture
def unread(monkeypatch):
    """Decoders without what reads values: timesteps are numbers of the CPU, no mask is looked into."""
    monkeypatch.setattr("transformers.masking_utils.is_tracing", lambda tensor=None: True)
    for kind in (DDIMScheduler, DDPMScheduler):
        start = kind.set_timesteps
        monkeypatch.setattr(kind, "set_timesteps", lambda self, steps, device=None, start=start: start(self, steps))


@pytest.fixture
def drawn(unread, monkeypatch):
    """What the decoders drew (3, side, side), in a list: tensors without values. Whoever wants to see them is shown grey."""
    kept = []

    def draw(self, *, call, output_type, **options):
        images = call(self, **options, output_type="pt").images
        kept.extend(images)
        return SimpleNamespace(images=np.full((len(images), *images.shape[2:], 3), 0.5))

    for kind in (KandinskyPipeline, KandinskyV22Pipeline):
        monkeypatch.setattr(kind, "__call__", partialmethod(draw, call=kind.__call__))
    return kept


@pytest.mark.parametrize("kind", [TypicalityModel, KDETypicality, MixtureTypicality])
def test_what_is_measured_of_embeddings(kind):
    rows = torch.randn(80, 16, generator=torch.Generator().manual_seed(0))
    model, far = kind.fit(rows, dims=6), torch.empty(3, 16, device=META)
    cluster = NegativeCluster.fit(model, rows[:12], name="dull")
    with OneDevice():
        for measure in (model.log_prob, model.surprise, model.mahalanobis_squared, model.residual_energy, model.transform):
            assert measure(far).is_meta
        assert cluster.log_prob(far).is_meta and cluster.distance(far).is_meta
        assert model.tail_probability(far).shape == (3,) and len(model.sample(4, torch.Generator())) == 4
        assert TypicalityModel.fit(torch.empty(30, 16, device=META), dims=3).dims == 3


def test_a_checker_reads_a_picture(checker_folder, monkeypatch):
    checker, asked = load_checker(checker_folder, device="cpu"), []
    checker.model.to(META)

    def forward(**inputs):
        asked.append({name: (tensor.device, tensor.dtype) for name, tensor in inputs.items()})
        return SimpleNamespace(logits=torch.empty(1, 9, len(checker.processor.tokenizer), device=META))

    monkeypatch.setattr(checker.model, "forward", forward)
    for dtype in (torch.float32, torch.bfloat16):
        checker.model.to(dtype)
        with OneDevice():
            assert 0 < checker.check(Image.new("RGB", (40, 32)), "vehicle").probability < 1
        assert asked[-1]["pixel_values"] == (META, dtype) and {device for device, _ in asked[-1].values()} == {META}


@pytest.mark.parametrize("family", ["2.1", "2.2"])
def test_the_whole_command(family, miniature_folders, tmp_path, monkeypatch, unread):
    """Baseline, default threshold of the anchor, search, folder, pictures; gone on with; opened again on the CPU."""
    for module in ("creation", "generator", "pullback"):
        monkeypatch.setattr(f"creativelib.{module}.find_device", torch.device)
    monkeypatch.setattr("creativelib.creation.DPI", 30)
    options = ["--model", str(miniature_folders[family]), "--device", "meta", "--n", "80", "--checker", "none", "--quiet"]
    with OneDevice():
        for steps in ("2", "4"):
            assert cli.main(["create", "vehicle", *options, "--steps", steps, "--out", str(tmp_path)]) == 0
    with pytest.warns(UserWarning, match="device is 'meta', not 'cpu'"):
        run = CreativeRun.load(tmp_path, device="cpu")
    assert run.steps == 4 and Image.open(tmp_path / "before_after.png").width > 100


def test_pictures_are_drawn(away, drawn):
    """By the UNet and MoVQ, told by the multilingual text encoder where there is one; in half precision, as on a GPU."""
    generator = load_generator(away.origin, device=META, dtype=torch.float16)
    rows = torch.randn(3, away.embedding_dim)  # of another device, as a caller may give them
    with OneDevice():
        for one in (away, generator):
            pictures = one.decode(rows, batch_size=2)
            assert [picture.size for picture in pictures] == [(SIDE, SIDE)] * 3
            assert [(part.shape, part.device, part.dtype) for part in drawn[-3:]] == [((3, SIDE, SIDE), META, one.dtype)] * 3


def test_a_multilingual_text_encoder_reads(miniature_folders, monkeypatch, unread):
    monkeypatch.setattr("creativelib.generator.find_device", torch.device)
    for dtype in (torch.float32, torch.float16):
        away = load_generator(miniature_folders["2.1"], device=META, dtype=dtype)
        with OneDevice():
            row = away.text_embedding(PROMPT, "decoder")
        assert (row.shape, row.device, row.dtype) == ((1, away.embedding_dim), META, torch.float32)
        assert away.decoder_pipeline.text_encoder.dtype == dtype


def test_pictures_are_read(away):
    with OneDevice():
        assert away.encode_images([Image.new("RGB", (40, 32))]).is_meta and away.zero_image_embedding.is_meta


@pytest.mark.parametrize("family", FAMILIES)
def test_at_full_size(family, monkeypatch, drawn):
    """The published architectures: shapes, devices and dtypes of five steps and of a picture, without their gigabytes."""

    def without_values(make, *names, dtype, seed):
        with META:
            return make(*names).to(dtype).eval().requires_grad_(False)

    monkeypatch.setattr("creativelib.full_size._ready", without_values)
    generator = FullSize(family, META, torch.float16)
    with OneDevice(), torch.no_grad():
        rows = sample_embeddings(generator, generator.encode_text(PROMPT), noise_sources([1, 2]))
    assert rows.shape == (2, generator.embedding_dim)
    assert (rows.dtype, generator.image_encoder.dtype) == (torch.float32, torch.float16)
    with OneDevice():
        generator.decode(torch.randn(1, generator.embedding_dim), steps=2)
    assert [(picture.shape, picture.dtype, picture.device) for picture in drawn] == [((3, 512, 512), torch.float16, META)]

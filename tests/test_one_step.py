"""The method on one-step models: drawn as diffusers draws, measured as the eyes see, searched, kept and opened like any run."""

import inspect
import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, TCDScheduler, UNet2DConditionModel, VQModel
from miniature import SIDE, randomise
from miniature_one_step import SEEN, build_adapters, build_one_step_folder
from PIL import Image
from runs import Checker

from creativelib.directions import NegativeCluster
from creativelib.frameworks.loading import HYPER_SD, LORA_FILE, find_one_step, load_one_step
from creativelib.frameworks.pocket import kl_autoencoder
from creativelib.generator import NotFinite, positive_prompt
from creativelib.memory import ONE_STEP_WORK_PER_IMAGE
from creativelib.prior_sampling import noise_sources, sample_prior
from creativelib.pullback import SumRule
from creativelib.run import CreativeRun
from creativelib.searchable import Searchable
from creativelib.spaces import SPACES, make_space
from creativelib.typicality import TypicalityModel

PROMPT = positive_prompt("vehicle")
SEARCHED = [name for name in SPACES if name != "embedding"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_one_step_folder(tmp_path_factory.mktemp("one-step"))


@pytest.fixture(scope="module")
def model(folder):
    return load_one_step(folder, device="cpu")


@pytest.fixture(scope="module")
def typicality(model):
    baseline = sample_prior(model, PROMPT, n=60, batch_size=40, progress=False)
    return TypicalityModel.fit(baseline.embeddings, dims=8, provenance=baseline.provenance)


def array(images):
    return np.stack([np.asarray(image, float) for image in images])


def test_fewer_pictures_at_once_where_the_memory_is_short(model, monkeypatch):
    """A picture of 512 pixels takes 0.75 GiB to decode: 16 are more than a card of 12 GB."""
    drawn, sent, work = [], [], ONE_STEP_WORK_PER_IMAGE * (SIDE / 512) ** 2
    plain, condition = model.pixels, model.encode_text(PROMPT)
    monkeypatch.setattr(model, "pixels", lambda condition, few: (drawn.append(len(few)), plain(condition, few))[1])
    monkeypatch.setattr(model.memory, "_send_home", lambda part: (sent.append(part.name), setattr(part, "there", False)))
    model.memory.guest_when_called("checker", torch.nn.Linear(1, 1))
    with torch.no_grad():
        expected = model.sample(condition, noise_sources(range(5)))
        for limit in (2.5 * work, 0.0):
            monkeypatch.setattr(model.memory, "limit", model.memory.bytes() + limit)
            torch.testing.assert_close(model.sample(condition, noise_sources(range(5))), expected)
    assert drawn == [5, 2, 2, 1, 1, 1, 1, 1, 1] and sent[0] == "checker"
    assert model.sample(condition, noise_sources(range(3))).requires_grad is False and drawn[9:] == [3]
    del model.memory.parts["checker"]


def test_it_has_what_a_search_needs_of_a_generator(model, small_generator):
    methods = [name for name in dir(Searchable) if inspect.isfunction(getattr(Searchable, name)) and name[0] != "_"]
    assert {"encode_text", "draw", "tokenize"} <= set(methods)
    for one in (model, small_generator):
        assert isinstance(one, Searchable)
        for name in methods:
            asked, taken = (inspect.signature(getattr(kind, name)).parameters.values() for kind in (Searchable, type(one)))
            kinds = {parameter.name: parameter.kind for parameter in taken}
            assert all(kinds[each.name] == each.kind for each in asked if each.kind != each.VAR_KEYWORD), name


@pytest.mark.parametrize(("scheduler", "timestep"), [("tcd", None), ("lcm", 799)])
def test_what_is_drawn_is_what_the_pipeline_draws(scheduler, timestep, tmp_path):
    model = load_one_step(build_one_step_folder(tmp_path, scheduler, timestep=timestep), device="cpu")
    _, images = model.draw(model.encode_text(PROMPT), [5, 6])
    at = {"num_inference_steps": 1} if timestep is None else {"timesteps": [timestep]}
    expected = model.pipeline(
        PROMPT,
        num_images_per_prompt=2,
        guidance_scale=0,
        eta=1.0,
        generator=noise_sources([5, 6]),
        height=SIDE,
        width=SIDE,
        **at,
    ).images
    assert np.abs(array(images) - array(expected)).max() <= 1 and model.timestep == (timestep or 999)
    assert np.abs(array(images[:1]) - array(images[1:])).max() > 20  # the noise matters, so equality says something


def test_embeddings_are_what_the_eyes_see_of_the_pictures(model):
    condition = model.encode_text(PROMPT)
    embeddings, images = model.draw(condition, range(20))  # two batches
    torch.testing.assert_close(model.sample(condition, noise_sources(range(20))).detach(), embeddings, rtol=1e-4, atol=1e-5)
    seen = model.encode_images(images)  # of whole numbers of 0 to 255
    spread = (embeddings - embeddings.mean(0)).norm()
    assert (seen - embeddings).norm() < 0.03 * spread and embeddings.shape == (20, model.embedding_dim)


def test_pictures_are_prepared_as_the_processor_does(model):
    colours = np.random.default_rng(0).integers(0, 255, (SIDE // 4, SIDE // 4, 3), dtype=np.uint8)
    picture = Image.fromarray(colours).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    expected = model.eyes.processor(picture, return_tensors="pt").pixel_values
    found = model.eyes.prepare(pixels)
    assert found.shape == (1, 3, SEEN, SEEN) and (found - expected).abs().max() < 0.05


@pytest.mark.parametrize("name", SEARCHED)
def test_gradients_reach_every_parameter_of_a_space_and_nothing_else_changes(name, model):
    weights = {key: tensor.clone() for key, tensor in model.adapted.state_dict().items()}
    space = make_space(name, model, "vehicle", seed=1)
    plain = model.sample(space.positive, noise_sources([1, 2]))
    if name != "adjective-token":
        torch.testing.assert_close(space.sample([1, 2]), plain)
    for parameter in space.parameters():  # B is zero, so that A would get none
        with torch.no_grad():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    space.sample([1, 2]).square().sum().backward()
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in space.parameters())
    embeddings, images = space.draw([1, 2])
    assert (embeddings - plain).abs().max() > 1e-3 and len(images) == 2
    after = model.adapted.state_dict()
    assert all(torch.equal(tensor, after[key]) for key, tensor in weights.items()) and len(after) == len(weights)
    assert torch.equal(model.sample(space.positive, noise_sources([1, 2])), plain)


def test_no_embedding_is_searched_where_none_is_drawn(model):
    with pytest.raises(ValueError, match="^space: '.*' draws no embeddings, so there is no 'embedding' to search"):
        make_space("embedding", model, "vehicle")


def test_one_step_without_guidance_is_all_there_is(model, typicality):
    assert model.sampling() == model.sampling(1, 0) == {"steps": 1, "guidance": 0.0}
    with pytest.raises(ValueError, match="^prior_steps: got 5; '.*' draws in one step without guidance"):
        CreativeRun(model, "vehicle", make_space("subject-token", model, "vehicle"), typicality, prior_steps=5)
    with pytest.raises(ValueError, match="^guidance: got 4.0; "):
        sample_prior(model, PROMPT, n=1, guidance=4.0)
    with pytest.raises(ValueError, match="^sources: got none"):
        model.sample(model.encode_text(PROMPT), [])


def test_a_run_raises_surprise_is_checked_kept_and_opened_by_its_folder(model, folder, typicality, tmp_path):
    space, checker = make_space("lora", model, "vehicle", rank=4), Checker(0.9)
    options = {"learning_rate": 5e-2, "check_every": 12, "check_images": 2}
    run = CreativeRun(model, "vehicle", space, typicality, rule=SumRule(0.0), checker=checker, **options)
    run.run(24, progress=False, folder=tmp_path)
    seeds = [7, 8, 9, 10]
    before, after = (float(typicality.surprise(part).mean()) for part in (run.default(seeds), run.sample(seeds)))
    assert after > before + 2 and checker.asked == 4 and run.stopped == ""
    again = CreativeRun.load(tmp_path)  # the model is found where it was
    embeddings, images = again.draw(seeds)
    assert torch.equal(embeddings, run.sample(seeds)) and again.generator.weights == model.weights
    assert images[0].size == (SIDE, SIDE) and not np.array_equal(array(images), array(again.draw_default(seeds)[1]))
    assert again.settings["framework"] == "one-step" and again.settings["prior"] == {"steps": 1, "guidance": 0.0}
    far = NegativeCluster.from_run(run, n=10)
    CreativeRun(model, "vehicle", make_space("lora", model, "vehicle"), typicality, clusters=[far], rule=SumRule()).step()

    other = UNet2DConditionModel.from_pretrained(folder / "pipeline" / "unet")  # the adapters are diffusers' own
    other.load_lora_adapter(str(run.export_lora(tmp_path / "adapters")), prefix=None)
    pipeline = StableDiffusionPipeline(**{**model.pipeline.components, "unet": other}, requires_safety_checker=False)
    drawn = pipeline(
        PROMPT, num_images_per_prompt=4, num_inference_steps=1, guidance_scale=0, eta=1.0, generator=noise_sources(seeds),
        height=SIDE, width=SIDE,
    ).images  # fmt: skip
    assert np.abs(array(drawn) - array(run.draw(seeds)[1])).max() <= 1


def test_a_step_is_the_same_where_the_forward_pass_is_computed_again(folder, typicality):
    """Gradient checkpointing, as at the published size: what was not kept is computed with the adapters in place."""
    histories = []
    for again in (False, True):
        model = load_one_step(folder, device="cpu")
        if again:
            model.adapted.enable_gradient_checkpointing()
            model.vae.enable_gradient_checkpointing()
        run = CreativeRun(model, "vehicle", make_space("lora", model, "vehicle", rank=2), typicality, rule=SumRule(0.0))
        histories.append([(row["surprise"], row["gradient_norm"]) for row in (run.step(), run.step(), run.step())])
    np.testing.assert_allclose(*histories, rtol=1e-3)


def test_the_anchor_is_of_the_eyes(model):
    found = model.text_embedding(PROMPT)
    ids = model.tokenizer(PROMPT, padding="max_length", return_tensors="pt").input_ids
    torch.testing.assert_close(found, model.eyes.text_encoder(ids).text_embeds)
    assert model.eyes.text_encoder.config.eos_token_id == model.tokenizer.eos_token_id  # pooled there, not at the largest id


def test_pictures_that_are_not_finite_are_refused_and_end_a_run(model, typicality):
    space = make_space("lora", model, "vehicle", rank=2)
    run = CreativeRun(model, "vehicle", space, typicality, rule=SumRule(0.0), checker=Checker(0.9), check_every=2)
    run.step()
    with torch.no_grad():
        space.parameters()[0].fill_(torch.nan)
    with pytest.raises(NotFinite, match="^seeds: 2 of 2 pictures hold NaN"):
        space.draw([1, 2])
    run.run(2, progress=False)
    assert run.stopped == "not finite" and run.result_step == 0


def test_hyper_sds_adapters_are_fused_under_tcds_scheduler(tmp_path):
    folder = build_one_step_folder(tmp_path / "hyper", "ddim")
    plain = load_one_step(folder, device="cpu")
    added = build_adapters(plain.adapted, folder / LORA_FILE)
    model = load_one_step(folder, device="cpu")
    assert isinstance(model.pipeline.scheduler, TCDScheduler) and len(added) > 2
    for name, module in model.adapted.named_modules():
        if isinstance(module, torch.nn.Linear):
            torch.testing.assert_close(module.weight, plain.adapted.get_submodule(name).weight + added.get(name, 0.0))
    assert not any("lora" in name for name, _ in model.adapted.named_modules())  # fused: a space hangs its own in
    assert set(model.weights) == {"pipeline", "encoder", "lora"} and model.sampling_weights != plain.sampling_weights
    space = make_space("lora", model, "vehicle")
    space.sample([1]).sum().backward()
    assert HYPER_SD == find_one_step("hyper-sd") and HYPER_SD.lora[1].endswith(".safetensors")


@pytest.mark.parametrize("setting", [{"eta": "much"}, {"timestep": 1.5}, {"drawings": 1}, {"image_size": True}])
def test_settings_that_are_none_are_refused(setting, tmp_path):
    for part in ("pipeline", "encoder"):
        (tmp_path / part).mkdir()
    (tmp_path / "one_step.json").write_text(json.dumps(setting))
    with pytest.raises(ValueError, match=f"^model: .*one_step.json has {next(iter(setting))} = .*; write a value of the kind "):
        load_one_step(tmp_path)


def test_other_models_are_refused(tmp_path, miniature_folders):
    with pytest.raises(
        ValueError, match="^model: got 'sdxl'; choose 'pocket', 'hyper-sd', or a folder with pipeline/ and encod"
    ):
        load_one_step("sdxl")
    (tmp_path / "encoder").mkdir()
    (tmp_path / "pipeline").symlink_to(miniature_folders["2.2"] / "decoder")
    with pytest.raises(OSError, match="^model: .*pipeline"):
        load_one_step(tmp_path, device="cpu")


def test_the_autoencoder_is_the_same_in_the_other_form():
    movq = VQModel(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=3, vq_embed_dim=3, num_vq_embeddings=8, norm_num_groups=8, mid_block_add_attention=False,
    )  # fmt: skip
    randomise(movq, seed=1, scale=0.3)
    model = kl_autoencoder(movq)
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        latents, posterior = movq.encode(pixels).latents, model.encode(pixels).latent_dist
        torch.testing.assert_close(posterior.mode(), latents)
        torch.testing.assert_close(posterior.sample(torch.Generator().manual_seed(0)), latents, atol=1e-5, rtol=1e-4)
        pictures = model.decode(latents).sample
        torch.testing.assert_close(pictures, movq.decode(latents, force_not_quantize=True).sample)
    assert model.config.scaling_factor == 1.0
    movq.register_to_config(norm_type="spatial")
    with pytest.raises(ValueError, match="^movq: without group norms"):
        kl_autoencoder(movq)

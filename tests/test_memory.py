"""The ledger: what stays on the device, who makes room for whom, and that the published sizes fit a card of 12 GB."""

import math

import pytest
import torch
from PIL import Image

from creativelib import memory
from creativelib.generator import load_generator
from creativelib.memory import GIB, RESERVE, Ledger, decoder_work, in_batches, memory_limit
from creativelib.methods.asking import ask
from creativelib.prior_sampling import noise_sources
from creativelib.pullback import load_checker

CPU, META = torch.device("cpu"), torch.device("meta")


class Weights(torch.nn.Module):
    """``size`` bytes that need no memory."""

    def __init__(self, size: float, dtype: torch.dtype = torch.float16):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(int(size / dtype.itemsize), dtype=dtype, device=META), requires_grad=False)


def there(ledger) -> str:
    return "".join(name for name, part in sorted(ledger.parts.items()) if part.there)


def test_guests_make_room_for_each_other_and_the_oldest_leaves_first(monkeypatch):
    monkeypatch.setattr(Ledger, "home", META)
    ledger = Ledger(META, 10)
    ledger.keep("p", Weights(4))
    for name in "abc":
        ledger.guest(name, Weights(2))
    seen = []
    for name in "abcaab":
        ledger.need(name, work=1)
        seen.append(there(ledger))
    assert seen == ["ap", "abp", "bcp", "acp", "acp", "abp"] and ledger.most == 8
    ledger.need("c", work=4)
    assert there(ledger) == "cp"
    ledger.need("c", work=100)  # there is nobody left to leave: what stays, stays
    assert there(ledger) == "cp" and ledger.room("a") == 10 - 4 - 2


def test_a_part_for_which_there_was_no_room_can_come_later(monkeypatch):
    monkeypatch.setattr(Ledger, "home", META)
    ledger, room, sent = Ledger(META), [], []

    class Heavy(Weights):
        def to(self, device):
            sent.append(device)
            if not room and len(sent) == 1:
                raise torch.OutOfMemoryError("no room")

    ledger.guest("a", Weights(2), Heavy(2))
    ledger.guest("b", Weights(2))
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            ledger.need("a", "b")
        assert there(ledger) == "" and len(sent) == 2  # it was sent home, whole
        sent.clear()
    room.append(True)
    ledger.need("a", "b")
    assert there(ledger) == "ab"


def test_without_a_limit_nobody_leaves(monkeypatch):
    monkeypatch.setattr(Ledger, "home", None)
    ledger = Ledger(META)
    for name in "abc":
        ledger.guest(name, Weights(2))
        ledger.need(name, work=1e30)
    assert there(ledger) == "abc" and ledger.bytes() == 6 and ledger.room("a") == math.inf


def test_what_has_to_stay_must_fit():
    ledger = Ledger(META, 3 * GIB)
    ledger.keep("prior", Weights(2 * GIB))
    with pytest.raises(ValueError, match="^memory: 3.0 GiB are too few for prior and text encoder, which take 4.0 GiB; use a"):
        ledger.keep("text encoder", Weights(2 * GIB))
    assert str(ledger).splitlines() == [
        "prior            2.00 GiB  float16   stays on meta", "on the device    2.00 GiB  (limit 3.00 GiB)"]  # fmt: skip


def test_weights_that_two_modules_share_count_once():
    shared = Weights(8)
    ledger = Ledger(META)
    ledger.keep("both", shared, torch.nn.Sequential(shared))
    assert ledger.bytes() == 8


@pytest.mark.parametrize(("said", "size"), [("12GB", 12e9), ("11.5 GiB", 11.5 * GIB), ("900mb", 9e8), (2 * GIB, 2 * GIB)])
def test_amounts_of_memory(said, size):
    assert memory_limit(said, CPU) == size - RESERVE


@pytest.mark.parametrize("said", ["lots", "0.5GB", "12", "1.2.3GB", True, math.nan, -1, "12TB"])
def test_what_is_no_amount_of_memory(said):
    with pytest.raises(ValueError, match="^memory: got .*; give an amount such as '12GB', more than 0.75 GiB"):
        memory_limit(said, CPU)
    assert memory_limit(None, CPU) == math.inf


def test_what_other_programs_have_of_a_card_is_not_ours(monkeypatch):
    cuda, card = torch.device("cuda"), {"free": 11.0, "total": 11.63, "reserved": 0.0}
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (int(card["free"] * GIB), int(card["total"] * GIB)))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: int(card["reserved"] * GIB))
    limits = []
    for free, reserved in ((11.4, 0.0), (9.8, 0.0), (3.2, 6.6)):  # nobody else; a desktop; the same, and tensors of ours
        card |= {"free": free, "reserved": reserved}
        limits.append(memory_limit(None, cuda) / GIB)
    assert limits == pytest.approx([11.63 - 0.75, 9.8 - 0.35, 9.8 - 0.35], abs=1e-6)
    card |= {"free": 0.3, "reserved": 0.0}
    with pytest.raises(
        ValueError, match="^memory: other programs have all but 0.3 of the 11.6 GiB of cuda; end them, or use d"
    ):
        memory_limit(None, cuda)


def test_fewer_images_at_once_where_the_memory_is_short():
    half = torch.float16
    assert decoder_work(math.inf, 16, 512, half)[:2] == (16, 3)
    assert decoder_work(math.inf, 16, 128, torch.float32)[:2] == (16, 16)
    drawn, decoded, work = decoder_work(1.6 * GIB, 16, 512, half)
    assert (drawn, decoded) == (12, 2) and work == pytest.approx(1.6 * GIB, rel=0.01) and work <= 1.6 * GIB
    assert decoder_work(1.6 * GIB, 3, 512, half)[0] == 3
    assert decoder_work(0, 16, 512, half)[:2] == decoder_work(-GIB, 16, 512, half)[:2] == (1, 1)
    assert decoder_work(1.6 * GIB, 16, 512, torch.float32)[:2] == (2, 1)


def test_decoding_in_batches_is_decoding(small_generator):
    movq = small_generator.decoder_pipeline.movq
    latents, sizes = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0)), []
    plain = type(movq).decode

    def counted(part, **options):
        sizes.append(len(part))
        return plain(movq, part, **options)

    with torch.no_grad():
        found = in_batches(counted, lambda: 2)(latents, force_not_quantize=True)
        torch.testing.assert_close(found["sample"], plain(movq, latents, force_not_quantize=True).sample)
        (whole,) = in_batches(counted, lambda: 9)(latents, return_dict=False, force_not_quantize=True)
        torch.testing.assert_close(whole, found.sample)
    assert sizes == [2, 2, 1, 5]


# --- a generator under its ledger -------------------------------------------------------------------------------------


def test_every_part_is_there_when_it_works(generator, miniature_folders):
    """The device is not another one here, so the books are what is checked: at every call, of every part."""
    short = load_generator(miniature_folders[generator.name], device="cpu")
    pipeline, prior_pipeline = short._decoder_pipeline, short._prior_pipeline
    guests = {"text encoder": [prior_pipeline.text_encoder], "image encoder": [prior_pipeline.image_encoder]}
    guests["decoder"] = [pipeline.unet, pipeline.movq.decoder, *([pipeline.text_encoder] if generator.name == "2.1" else [])]
    books, calls = short.memory, []
    biggest = max(books.parts[name].bytes for name in guests)
    books.limit = books.bytes() + biggest + memory.GUEST_WORK  # with one guest, whichever it is
    for part, modules in guests.items():
        for module in modules:
            module.register_forward_pre_hook(lambda *_, part=part: calls.append((part, books.parts[part].there)))
    embeddings = torch.randn(3, short.embedding_dim, generator=torch.Generator().manual_seed(0))
    pictures = [Image.new("RGB", (40, 32), "red")]
    for _ in range(2):
        drawn, seen = short.decode(embeddings, prompt="a vehicle", seed=1), short.encode_images(pictures)
        read = short.encode_text("a vehicle")
    assert {part for part, _ in calls} == set(guests) and all(there for _, there in calls)
    assert books.most <= books.limit and not books.parts["decoder"].there  # the image encoder came after it
    expected = generator.decode(embeddings, prompt="a vehicle", seed=1)
    assert [image.tobytes() for image in drawn] == [image.tobytes() for image in expected]
    assert torch.equal(seen, generator.encode_images(pictures))
    assert torch.equal(read.text_embedding, generator.encode_text("a vehicle").text_embedding)


def test_each_part_comes_in_its_own_dtype(miniature_folders):
    mixed = load_generator(miniature_folders["2.2"], device="cpu", dtype=torch.bfloat16, memory="12GB")
    mixed.decoder_pipeline  # noqa: B018
    dtypes = {name: {parameter.dtype for module in part.modules for parameter in module.parameters()}
              for name, part in mixed.memory.parts.items()}  # fmt: skip
    half, full = {torch.bfloat16}, {torch.float32}
    assert dtypes == {"prior": full, "text encoder": full, "image encoder": half, "decoder": half}
    assert mixed.encode_images([Image.new("RGB", (8, 8))]).dtype == torch.float32
    assert mixed.memory.limit == 12e9 - RESERVE


def test_a_guest_that_comes_when_it_is_called(monkeypatch):
    """Where guests wait is another device here, without values: a call that does not bring them cannot compute."""
    monkeypatch.setattr(Ledger, "home", META)
    ledger, sent = Ledger(CPU, 6), []
    monkeypatch.setattr(Ledger, "_send_home", lambda ledger, part: (sent.append(part.name), setattr(part, "there", False)))
    module = torch.nn.Linear(1, 1, bias=False)  # 4 bytes
    ledger.guest_when_called("checker", module)
    ledger.guest("other", torch.nn.Linear(1, 1, bias=False))
    assert ledger.parts["checker"].there
    ledger.need("other", work=1)
    assert sent == ["checker"] and not ledger.parts["checker"].there
    ledger.device = META
    assert module(input=torch.ones(1, 1)).device.type == "meta"  # both came: weights and what they are given
    assert ledger.parts["checker"].there and sent == ["checker", "other"]


def test_a_checker_takes_turns_with_a_generator(checker_folder, miniature_folders, monkeypatch):
    """Also where it answers in words; and of two of one name the one that is called is there."""
    generator = load_generator(miniature_folders["2.2"], device="cpu")
    books, kept = generator.memory, []
    one, other = (load_checker(checker_folder, memory=books) for _ in range(2))
    name = f"checker {checker_folder.name}"
    assert books.parts[name].there and books.parts[name].modules == [other.model]
    books.limit = memory.GUEST_WORK + sum(books.parts[part].bytes for part in ("prior", name))
    monkeypatch.setattr(Ledger, "_send_home", lambda ledger, part: (kept.append(part), setattr(part, "there", False)))
    picture = Image.new("RGB", (40, 32), "red")
    for checker, call in ((one, "check"), (other, "ask"), (one, "ask")):
        generator.encode_text("a vehicle")
        assert kept and not any(part.there for part in books.parts.values() if part.name == name)
        checker.check(picture, "vehicle") if call == "check" else ask(checker, picture, "What is this?")
        assert books.parts[name].there and books.parts[name].modules == [checker.model]
    with pytest.raises(ValueError, match="^device: got 'meta', but the memory is that of 'cpu'; leave one out"):
        load_checker(checker_folder, device="meta", memory=books)
    assert load_checker(checker_folder, device="cpu:0", memory=books).settings == one.settings


def test_many_samples_of_the_prior_have_room(small_generator, monkeypatch):
    """A baseline of the paper, a batch at a time: guests leave, unless a gradient may need them."""
    asked, condition = [], small_generator.encode_text("a vehicle")
    monkeypatch.setattr(small_generator.memory, "need", lambda *names, work=0: names or asked.append(work / GIB))
    small_generator.sample(condition, noise_sources(range(2)))
    assert not asked
    with torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16):
            monkeypatch.setattr(small_generator, "sampling_dtype", dtype)
            small_generator.sample(condition, noise_sources(range(50)))
    assert asked == pytest.approx([0.2, 0.1])


# Parameters in 10^9 of the published checkpoints, counted on meta tensors.
PUBLISHED = {
    "2.1": {"prior": 1.022, "text encoder": 0.124, "image encoder": 0.304, "decoder": 1.229 + 0.068 + 0.56, "checker": 2.09},
    "2.2": {"prior": 1.026, "text encoder": 0.695, "image encoder": 1.845, "decoder": 1.253 + 0.068, "checker": 2.09},
}


@pytest.mark.parametrize("card", ["10GB", "12GB", "16GB"])
@pytest.mark.parametrize("family", PUBLISHED)
def test_a_run_with_checks_of_the_published_sizes_fits_a_small_card(family, card, monkeypatch):
    monkeypatch.setattr(Ledger, "home", META)
    ledger = Ledger(META, memory_limit(card, CPU))
    for name, count in PUBLISHED[family].items():
        dtype = torch.float32 if name in ("prior", "text encoder") else torch.float16
        (ledger.keep if name == "prior" else ledger.guest)(name, Weights(count * 1e9 * dtype.itemsize, dtype))
    for name in ("text encoder", "image encoder", "decoder", "checker", "text encoder", "decoder", "checker", "image encoder"):
        work = memory.GUEST_WORK
        if name == "decoder":
            drawn, decoded, work = decoder_work(ledger.room(name), 16, 512, torch.float16)
            assert drawn >= 4 and decoded >= 1  # the pictures of a check at once
        ledger.need(name, work=work)
        assert ledger.parts[name].there and ledger.bytes() + work <= ledger.limit

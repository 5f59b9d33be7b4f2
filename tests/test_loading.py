"""Why something could not be loaded: told in one sentence, at once, with its cause."""

import errno
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import diffusers
import huggingface_hub
import pytest
import torch

from creativelib import loading, pipelines
from creativelib.generator import load_generator
from creativelib.loading import broken_file, find_device, first_cause, load_pretrained
from creativelib.pullback import load_checker


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine that gives every question the same answer: ``hub.answer = (status, headers)``."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.server.asked += 1
            if self.server.answer is None:  # silent
                self.server.closing.wait(10)
                return
            status, headers = self.server.answer
            self.send_response(status)
            for name, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *message):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads, server.asked, server.answer, server.closing = True, 0, (404, {}), threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    point_to(monkeypatch, server.server_port)
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_hub(monkeypatch):
    """Nobody listens where the hub should be."""
    point_to(monkeypatch, 9)


def point_to(monkeypatch, port: int) -> None:
    constants, endpoint = huggingface_hub.constants, f"http://127.0.0.1:{port}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "http_proxy", "https_proxy", "HF_HUB_ETAG_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    huggingface_hub.close_session()


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RevisionNotFound", "the hub has no revision 'main' of it; name a commit"),
        (403, "GatedRepo", "the hub refuses it (403): ask for access"),
        (403, "", "the hub refuses it (403)"),
        (401, "", "the hub has no model of this name and revision 'main', or a private one (401)"),
        (404, "RepoNotFound", "the hub has no model of this name"),
        (404, "", "the hub has no model of this name"),
        (404, "EntryNotFound", "on the hub it has no model_index.json: it is a model of another kind"),
        (429, "", "the hub answers 'too many requests' (429)"),
        (500, "", "the hub has trouble of its own (it answers 500)"),
        (503, "", "it answers 503"),
    ],
)
def test_what_the_hub_answers_is_what_is_said(hub, status, code, message):
    hub.answer = (status, {"X-Error-Code": code} if code else {})
    with pytest.raises(
        OSError, match="^model: kandinsky-community/kandinsky-2-1-prior is not on this machine, and the|on"
    ) as raised:
        load_generator("kandinsky-2.1", device="cpu")
    said = str(raised.value)
    assert message in said and "connect to the internet" not in said and "\n" not in said
    assert hub.asked == 1  # no retries


def test_without_a_network_it_is_said_at_once(no_hub, capfd):
    for name, load in (
        ("model", lambda: load_generator("kandinsky-2.2", device="cpu")),
        ("checker", lambda: load_checker("a/b")),
    ):
        began = time.monotonic()
        with pytest.raises(
            OSError, match=rf"^{name}: .*the hub cannot be reached \(.*refused.*\); connect to the internet once, or"
        ):
            load()
        assert time.monotonic() - began < 3
    assert capfd.readouterr() == ("", "")


def test_a_hub_that_is_silent_is_not_waited_for(hub, monkeypatch):
    hub.answer = None
    monkeypatch.setattr(loading, "PATIENCE", 0.2)
    began = time.monotonic()
    with pytest.raises(OSError, match=r"cannot be reached \((no answer within 0.2 s|.*timed out)"):
        load_checker("nobody/nothing")
    assert time.monotonic() - began < 3 and hub.asked == 1


def test_offline_by_choice(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="is not on this machine, and the hub is not asked because HF_HUB_OFFLINE is set"):
        load_generator("kandinsky-2.1", device="cpu")


def test_a_proxy_that_needs_a_package(no_hub, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    huggingface_hub.close_session()
    with pytest.raises(OSError, match="^model: .*SOCKS proxy.*pip install socksio, or unset ALL_PROXY"):
        load_generator("kandinsky-2.2", device="cpu")


def test_a_name_that_cannot_be_one(no_hub):
    with pytest.raises(OSError, match="^checker: my checker is not on this machine, and that is neither a folder nor a name"):
        load_checker("my checker")


def test_what_is_on_this_machine_serves_where_the_hub_does_not(no_hub, checker_folder, tmp_path, monkeypatch):
    repository, commit = tmp_path / "models--nobody--checker", "0" * 40
    shutil.copytree(checker_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    began = time.monotonic()
    assert load_checker("nobody/checker", device="cpu").yes == load_checker(checker_folder, device="cpu").yes
    assert time.monotonic() - began < 10  # transformers asks a hub that is away six times, 24 s, also for files that are here
    cut(repository / "snapshots" / commit / "model.safetensors")
    with pytest.raises(OSError, match=r"^checker: nobody/checker cannot be loaded: .*s is damaged.*\(the hub cannot"):
        load_checker("nobody/checker", device="cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "foo", "", 3])
def test_a_device_that_is_not_there(name, monkeypatch, miniature_folders, checker_folder):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    for load in (find_device, lambda device: load_generator(miniature_folders["2.2"], device=device),
                 lambda device: load_checker(checker_folder, device=device)):  # fmt: skip
        with pytest.raises(ValueError, match=rf"^device: got '{name}'.*; there is: cpu$"):
            load(name)


def test_devices_that_are_there():
    assert find_device("cpu") == find_device(torch.device("cpu")) == torch.device("cpu")
    assert find_device().type in ("cpu", "cuda") and find_device("cpu:0").type == "cpu"


@pytest.mark.parametrize("name", ["meta", "cpu:3"])
def test_a_device_that_takes_a_tensor_and_is_none(name):
    """The first holds no numbers; of the second there is one, whatever its number."""
    with pytest.raises(ValueError, match=rf"^device: got '{name}'; there is: cpu"):
        find_device(name)


def test_generators_load_in_several_threads(miniature_folders, monkeypatch):
    """One at a time: loading changes for a while how every thread of the process makes its modules."""
    together, load = threading.Barrier(2), pipelines.DiffusionPipeline.from_pretrained

    def meet(*given, **named):
        with suppress(threading.BrokenBarrierError):
            together.wait(0.5)
            met.append(True)
        return load(*given, **named)

    met = []
    monkeypatch.setattr(pipelines.DiffusionPipeline, "from_pretrained", meet)
    with ThreadPoolExecutor(2) as pool:
        loaded = list(pool.map(lambda _: load_generator(miniature_folders["2.2"], device="cpu"), range(2)))
    assert not met and torch.equal(*(generator.prior.prd_embedding for generator in loaded))


# --- folders ----------------------------------------------------------------------------------------------------------


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


PARTS = ["prior/prior", "prior/text_encoder", "prior/image_encoder", "decoder/unet", "decoder/movq"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", ["safetensors", "json"])
def test_a_file_that_was_cut_is_named(part, kind, miniature_folders, tmp_path):
    folder = shutil.copytree(miniature_folders["2.2"], tmp_path / "cut")
    (path,) = [path for path in (folder / part).glob(f"*.{kind}") if path.stat().st_size > 100]
    cut(path)
    with pytest.raises(OSError, match=rf"^model: .*{path} is damaged or incomplete \(.*\); delete it and fetch it again$"):
        load_generator(folder, device="cpu").decode(torch.zeros(1, 16))


def test_a_checker_that_was_cut_is_named(checker_folder, tmp_path):
    folder = shutil.copytree(checker_folder, tmp_path / "checker")
    cut(folder / "model.safetensors")
    with pytest.raises(OSError, match=rf"^checker: the folder {folder} cannot be loaded: {folder}/model.*s is damaged"):
        load_checker(folder, device="cpu")


def test_a_coarse_matrix_that_was_cut_is_named(miniature_folders, tmp_path):
    folder = shutil.copytree(miniature_folders["2.2"], tmp_path / "cut")
    (folder / "decoder/coarse.safetensors").write_bytes(b"12345")
    with pytest.raises(OSError, match="^model: .*coarse.safetensors is damaged"):
        load_generator(folder, device="cpu").decode(torch.zeros(1, 16))


def test_a_pointer_of_git_lfs_is_told_apart(miniature_folders, tmp_path):
    folder = shutil.copytree(miniature_folders["2.2"], tmp_path / "pointer")
    path = next((folder / "prior/prior").glob("*.safetensors"))
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(OSError, match=rf"{path} is a Git LFS pointer.*git lfs pull"):
        load_generator(folder, device="cpu")


def test_a_folder_of_another_kind(miniature_folders, checker_folder, tmp_path):
    prior = miniature_folders["2.2"] / "prior"
    with pytest.raises(OSError, match=f"^checker: the folder {prior} cannot be loaded: it has no config.json; it is a model"):
        load_checker(prior, device="cpu")
    swapped = tmp_path / "swapped"
    for part, other in (("prior", "decoder"), ("decoder", "prior")):
        shutil.copytree(miniature_folders["2.2"] / part, swapped / other)
    with pytest.raises(OSError, match="^model: .*/prior is a KandinskyV22Pipeline without prior, text_encoder"):
        load_generator(swapped, device="cpu")
    shutil.rmtree(swapped / "prior")
    shutil.copytree(miniature_folders["2.2"] / "prior", swapped / "prior")
    with pytest.raises(OSError, match="^model: .*/decoder is a KandinskyV22PriorPipeline without unet, movq"):
        load_generator(swapped, device="cpu").decode(torch.zeros(1, 16))


def test_missing_packages_are_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")

    def load(where):
        raise ImportError("SmolVLMProcessor requires the num2words library")

    with pytest.raises(OSError, match="^checker: the folder .*: SmolVLMProcessor requires the num2words library$"):
        load_pretrained("checker", str(tmp_path), "config.json", load)


def test_a_full_disk_is_called_one(hub, tmp_path):
    hub.answer = (200, {"X-Repo-Commit": "0" * 40, "ETag": '"x"'})

    def load(where, **options):
        assert options == {"revision": "main"}
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "/cache/blob")
        except OSError as error:
            raise ValueError("cannot load the configuration") from error

    with pytest.raises(OSError, match="^model: owner/name cannot be loaded: the disk is full .*/cache/blob.*; free some"):
        load_pretrained("model", "owner/name", "config.json", load)


def test_a_full_memory_is_not_a_broken_file(tmp_path):
    (tmp_path / "config.json").write_text("{}")

    def load(where):
        raise MemoryError

    with pytest.raises(MemoryError):
        load_pretrained("model", str(tmp_path), "config.json", load)


def test_the_first_cause_in_one_short_line():
    try:
        try:
            {}["absent"]
        except KeyError as error:
            raise ValueError("second\nline " + "x" * 300) from error
    except ValueError as error:
        assert first_cause(error) == "'absent'"
    assert first_cause(TimeoutError()) == "TimeoutError"
    assert first_cause(ValueError("two\n  lines")) == "two lines" and len(first_cause(ValueError("x" * 999))) == 200


def test_broken_file_of_a_sound_folder(miniature_folders, tmp_path):
    assert broken_file(miniature_folders["2.1"]) is None
    (tmp_path / "a.json").write_text(json.dumps([1]))
    assert broken_file(tmp_path) is None


def test_loading_leaves_the_bars_of_others_as_they_were(miniature_folders):
    log = diffusers.utils.logging
    before = (log.get_verbosity(), log.is_progress_bar_enabled())
    load_generator(miniature_folders["2.2"], device="cpu")
    assert (log.get_verbosity(), log.is_progress_bar_enabled()) == before

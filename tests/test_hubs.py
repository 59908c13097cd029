"""Models from Hugging Face repositories, against a local server of the same layout; nothing leaves this machine."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import huggingface_hub.utils._http as hub_http
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from huggingface_hub import constants, file_download
from PIL import Image
from test_checkpoints import Payload, pixels, refused_name
from timm.models import save_for_hf
from torch import nn

import attrsens
from attrsens.images import decode
from attrsens.models import zoo
from attrsens.models.architectures import find_architecture
from attrsens.models.assemble import _bare
from attrsens.models.labels import load_labels
from attrsens.models.robust import REPOSITORY, robust_names
from attrsens.samples import sample

ROBUST = "madrylab/robust-imagenet-models"
TINY = "timm/test_resnet.r160_in1k"  # 0.5 million weights; also the name of its repository
COMMIT = "0123456789abcdef0123456789abcdef01234567"

Fault = Callable[["Handler"], bool]


class Hub:
    """Repositories and the requests for their files. As on the real hub, large files lie on a server of their own."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.fault: Fault = lambda handler: False
        self.servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
        self.endpoint, self.store = (f"http://127.0.0.1:{server.server_port}" for server in self.servers)
        for server in self.servers:
            server.hub = self
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def put(self, repo: str, name: str, content: bytes, revision: str = "main") -> str:
        """Publish a file; returns its sha256."""
        digest = hashlib.sha256(content).hexdigest()
        self.files.setdefault((repo, revision), {})[name] = content
        self.blobs[digest] = content
        return digest

    def close(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()


def commit(repo: str, revision: str = "main") -> str:
    return revision if revision == COMMIT else hashlib.sha1(f"{repo}@{revision}".encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        hub: Hub = self.server.hub
        asked = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", self.path)
        blob = re.fullmatch(r"/blobs/(\w+)", self.path)
        if asked or blob:
            hub.requests.append(f"{self.command} {self.path}")
        if hub.fault(self):
            return
        if blob:
            self.send(hub.blobs[blob[1]])
        elif asked:
            self.resolve(hub, asked[1], unquote(asked[2]), asked[3])
        else:  # what else the client may ask for
            self.send(b"", 404)

    do_GET = do_HEAD

    def resolve(self, hub: Hub, repo: str, revision: str, name: str) -> None:
        if repo not in {known for known, _ in hub.files}:
            return self.send(b"", 404, **{"X-Error-Code": "RepoNotFound"})
        if (repo, revision) not in hub.files:
            return self.send(b"", 404, **{"X-Error-Code": "RevisionNotFound"})
        head = {"X-Repo-Commit": commit(repo, revision)}
        content = hub.files[repo, revision].get(name)
        if content is None:
            return self.send(b"", 404, **head, **{"X-Error-Code": "EntryNotFound"})
        digest = hashlib.sha256(content).hexdigest()
        if name.endswith(".json"):
            return self.send(content, ETag=f'"{digest[:40]}"', **head)
        head |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        return self.send(b"", 302, Location=f"{hub.store}/blobs/{digest}", ETag='"pointer"', **head)

    def send(self, content: bytes, status: int = 200, **headers: str) -> None:
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start and status == 200:
            status, whole = 206, len(content)
            content = content[int(start[1]) :]
            headers["Content-Range"] = f"bytes {start[1]}-{whole - 1}/{whole}"
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    """The server, an empty cache, and no pauses between the client's retries."""
    hub = Hub()
    for name, value in {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": True,
        "HF_HUB_DOWNLOAD_TIMEOUT": 5,
        "AGENT_HARNESSES_PATH": str(tmp_path / "agents.json"),
    }.items():
        assert hasattr(constants, name)
        monkeypatch.setattr(constants, name, value)
    hub.waits = []
    for module in (file_download, hub_http):
        monkeypatch.setattr(module, "time", SimpleNamespace(**{**vars(time), "sleep": hub.waits.append}))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    hub_http.close_session()
    yield hub
    hub_http.close_session()
    hub.close()


def place(tmp_path: Path, repo: str, name: str, snapshot: str = "main") -> Path:
    return tmp_path / "hub" / f"models--{repo.replace('/', '--')}" / "snapshots" / snapshot / name


def put_at(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def offline_message(what: str, repo: str, path: Path) -> str:
    return f"model {what}: {path.name} is not in the cache and downloads are off; put {path.name} of {repo} at {path}"


def drawn(module: nn.Module) -> nn.Module:
    """The network with weights that are drawn, but always the same."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                values = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(values + 0.5 if key.endswith("var") else (values - 0.5) * (tensor[0].numel() or 1) ** -0.5)
    return module.eval()


def timm_net(name: str, **options: object) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return drawn(timm.create_model(name, **options))


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    return timm_net("test_resnet")


def saved(module: nn.Module) -> bytes:
    return safetensors.torch.save(module.state_dict())


def torch_saved(data: object, path: Path) -> bytes:
    torch.save(data, path)
    return path.read_bytes()


def load(model: str, **options: object) -> attrsens.Classifier:
    return attrsens.load(model, device="cpu", fold=False, **options)


def assert_same_logits(classifier: attrsens.Classifier, module: nn.Module, size: int = 64) -> None:
    """On what the network was trained on: pixels less the mean, over the standard deviation."""
    steps = classifier.preprocess
    x = pixels(2, steps.channels, size, size)
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (steps.mean, steps.std))
    with torch.no_grad():
        expected = module((x - mean) / std)
    assert float(expected.std()) > 1e-4
    torch.testing.assert_close(classifier.logits(x), expected, rtol=1e-5, atol=1e-6)


# -- the robust family -----------------------------------------------------------------------------------------------

LADDERS = ("resnet18", "resnet50", "wide_resnet50_2", "wide_resnet50_4")
PAIRS = ("densenet", "mnasnet", "mobilenet", "resnext50_32x4d", "shufflenet", "vgg16_bn")
PUBLISHED = [
    *(f"{arch}_l2_eps{eps}.ckpt" for arch in LADDERS for eps in "0 0.01 0.03 0.05 0.1 0.25 0.5 1 3 5".split()),
    *(f"{arch}_l2_eps{eps}.ckpt" for arch in PAIRS for eps in "0 3".split()),
    *(f"{arch}_linf_eps{eps}.ckpt" for arch in LADDERS[:3] for eps in "0.5 1.0 2.0 4.0 8.0".split()),
]
# millions of parameters, as Salman et al. and torchvision state them
SIZES = {
    "resnet18": 11.7,
    "resnet50": 25.6,
    "wide_resnet50_2": 68.9,
    "wide_resnet50_4": 223.4,
    "densenet": 28.7,
    "mnasnet": 4.4,
    "mobilenet": 3.5,
    "resnext50_32x4d": 25.0,
    "shufflenet": 2.3,
    "vgg16_bn": 138.4,
}


def test_the_robust_names_are_the_whole_published_family():
    files = {name: file for name, (file, _) in robust_names().items()}
    assert len(PUBLISHED) == 67
    assert sorted(files.values()) == sorted(PUBLISHED)
    for name, file in files.items():
        assert name == re.sub(r"_(l2|linf)_eps", r"-\1-eps", file.removesuffix(".ckpt")).removesuffix(".0")
    assert {f"robust/{name}" for name in files} <= set(zoo.known_models())
    assert REPOSITORY == ROBUST


@pytest.mark.parametrize("published", SIZES)
def test_every_robust_architecture_can_be_built(published):
    (arch,) = {arch for file, arch in robust_names().values() if re.split("_l2|_linf", file)[0] == published}
    bare = _bare(find_architecture(arch), 1000)
    assert {p.device.type for p in bare.parameters()} == {"meta"}
    assert round(sum(p.numel() for p in bare.parameters()) / 1e6, 1) == SIZES[published]


def robust_checkpoint(module: nn.Module, path: Path, inner: str = "") -> tuple[bytes, list, list]:
    """A file as robust-models-transfer writes it: the network, the attacker's copy, a normaliser inside each."""
    mean, std = torch.tensor([0.48, 0.45, 0.41]).reshape(3, 1, 1), torch.tensor([0.22, 0.23, 0.24]).reshape(3, 1, 1)
    state = {f"module.{part}model.{inner}{k}": v for part in ("", "attacker.") for k, v in module.state_dict().items()}
    for part in ("module.normalizer", "module.attacker.normalize"):
        state |= {f"{part}.new_mean": mean, f"{part}.new_std": std}
    momentum = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    data = {"model": state, "optimizer": momentum, "schedule": {"last_epoch": 90}, "epoch": 90, "amp": None}
    return torch_saved(data, path), mean.flatten().tolist(), std.flatten().tolist()


@pytest.mark.parametrize(
    ("name", "arch", "inner"),
    [("resnet18-linf-eps4", "resnet18", ""), ("shufflenet-l2-eps3", "shufflenet_v2_x1_0", "model.")],
)
def test_a_robust_model_is_downloaded_once_and_is_the_published_network(name, arch, inner, hub, tmp_path, caplog):
    module = drawn(torchvision.models.get_model(arch, weights=None))
    content, mean, std = robust_checkpoint(module, tmp_path / "made.ckpt", inner)
    file = robust_names()[name][0]
    digest = hub.put(ROBUST, file, content)
    with caplog.at_level(logging.INFO, "attrsens"):
        classifier = load(f"robust/{name}")
    assert_same_logits(classifier, module)
    steps = classifier.preprocess
    np.testing.assert_allclose([steps.mean, steps.std], [mean, std], rtol=1e-6)
    assert (steps.resize, steps.crop, steps.interp, steps.squash) == (256, 224, "bilinear", False)
    assert tuple(classifier.classes) == load_labels("imagenet").names
    assert (classifier.name, classifier.sha256, classifier.architecture) == (f"robust/{name}", digest, arch)
    path = place(tmp_path, ROBUST, file, commit(ROBUST))
    assert classifier.source == str(path)
    assert f"downloaded {path} ({len(content) / 1e6:.1f} MB, sha256 {digest})" in caplog.text
    assert hub.requests == [f"HEAD /{ROBUST}/resolve/main/{file}", f"GET /blobs/{digest}"]
    caplog.clear()
    again = load(f"robust/{name}", sha256=digest)
    assert (len(hub.requests), caplog.text, again.id) == (2, "", classifier.id)
    assert refused_name(f"robust/{name}", sha256="0" * 64) == (
        f"model robust/{name}: its sha256 is {digest}, not the {'0' * 64} that was asked for"
    )


def test_unknown_robust_models_suggest_the_nearest(hub):
    assert refused_name("robust/resnet50-l2-eps4").startswith(
        "unknown robust model 'resnet50-l2-eps4'; did you mean 'resnet50-l2-eps"
    )
    assert refused_name("robust/resnet50_l2_eps3").startswith(
        "unknown robust model 'resnet50_l2_eps3'; did you mean 'resnet50-l2-eps3'?"
    )
    assert hub.requests == []


# -- timm's names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "test_resnet", "test_vit.r160_in1k"])
def test_a_timm_name_gives_the_network_with_its_published_weights(name, hub, caplog):
    cfg = timm.get_pretrained_cfg(name)
    module = timm_net(name.partition(".")[0])
    content = saved(module)
    digest = hub.put(cfg.hf_hub_id, "model.safetensors", content)
    with caplog.at_level(logging.INFO, "attrsens"):
        classifier = load(f"timm/{name}")
    assert_same_logits(classifier, module, 160)
    assert (classifier.sha256, classifier.name, classifier.layout) == (digest, f"timm/{name}", ["safetensors"])
    assert f"({len(content) / 1e6:.1f} MB, sha256 {digest})" in caplog.text
    assert tuple(classifier.classes) == load_labels("imagenet").names
    assert classifier.wnids[0] == "n01440764"
    assert (classifier.preprocess.mean, classifier.preprocess.std) == (cfg.mean, cfg.std)
    asked = list(hub.requests)
    load(f"timm/{name}", sha256=digest)
    assert hub.requests == asked == [f"HEAD /{cfg.hf_hub_id}/resolve/main/model.safetensors", f"GET /blobs/{digest}"]
    assert digest in refused_name(f"timm/{name}", sha256="1" * 64)


def assert_same_pixels(steps, cfg: dict) -> None:
    image = decode(sample("coffee").path)
    transform = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=cfg), is_training=False)
    *geometry, normalise = transform.transforms
    expected = Image.fromarray(image.pixels).convert("RGB")
    for step in geometry:
        expected = step(expected)
    np.testing.assert_array_equal(steps.apply(image), expected.numpy())
    np.testing.assert_allclose([steps.mean, steps.std], [normalise.mean, normalise.std], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "mode", "interpolation"),
    [
        ("resnet10t.c3_in1k", "center", "bicubic"),
        ("resnet50.a1_in1k", "center", "bicubic"),
        ("cspdarknet53.ra_in1k", "center", "bilinear"),
        ("tf_efficientnet_b1.ns_jft_in1k", "center", "bicubic"),
        ("convnext_base.fb_in22k_ft_in1k_384", "squash", "bicubic"),
        ("vit_base_patch16_lingbot.robbyant", "squash", "bilinear"),
    ],
)
def test_preprocessing_is_timms_pixel_for_pixel(name, mode, interpolation):
    cfg = timm.get_pretrained_cfg(name).to_dict()
    assert (cfg["crop_mode"], cfg["interpolation"]) == (mode, interpolation)
    assert_same_pixels(find_architecture(f"timm/{name}").preprocess, cfg)


def test_without_safetensors_the_other_file_is_read(hub, tiny, tmp_path):
    hub.put(TINY, "pytorch_model.bin", torch_saved(tiny.state_dict(), tmp_path / "net.bin"))
    assert_same_logits(load(TINY), tiny)
    assert [request.rpartition("/")[2] for request in hub.requests[:2]] == ["model.safetensors", "pytorch_model.bin"]
    asked = len(hub.requests)
    load(TINY)
    assert len(hub.requests) == asked


def test_code_in_a_downloaded_file_never_runs(hub, tiny, tmp_path):
    trap = tmp_path / "ran"
    for name in (TINY, "hf-hub:owner/repo"):
        content = torch_saved({"state_dict": tiny.state_dict(), "trick": Payload(trap)}, tmp_path / "evil.bin")
        hub.put(name.removeprefix("hf-hub:"), "pytorch_model.bin", content)
    hub.put("owner/repo", "config.json", b'{"architecture": "test_resnet", "num_classes": 1000}')
    for name in (TINY, "hf-hub:owner/repo"):
        assert refused_name(name).endswith(
            "refused: its pickle calls posix.system, which no checkpoint needs; nothing of it was run"
        )
    assert not trap.exists()
    torch.load(tmp_path / "evil.bin", weights_only=False)  # the trap works
    assert trap.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "test_resnett.r160_in1k",
            r"unknown timm model 'test_resnett'; did you mean 'test_resnet'\? timm has [\d,]+ arch",
        ),
        (
            "test_resnet.r160_in1",
            r"unknown weights 'r160_in1'; did you mean 'r160_in1k'\? weights of timm/test_resnet: ",
        ),
        (
            "coatnet_0_224",
            r"model timm/coatnet_0_224: timm has no weights for it; give a file with --arch timm/coatnet",
        ),
        (
            "gcvit_tiny.in1k",
            r"model timm/gcvit_tiny.in1k: its weights are not on the hub; give a file with --arch timm/",
        ),
        ("aimv2_1b_patch14_224", r"model timm/aimv2_1b_patch14_224: these weights are features without a classifier$"),
    ],
)
def test_a_timm_name_without_usable_weights_is_named(name, message, hub):
    assert re.match(message, refused_name(f"timm/{name}"))
    assert hub.requests == []


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "test_resnet"])
def test_weights_of_another_network_or_none_do_not_fit(name, hub, tiny):
    other = {k: v for k, v in tiny.state_dict().items() if not k.startswith("fc.")}
    for state in (other, {"other": torch.zeros(3)}, {}):
        hub.put(TINY, "model.safetensors", safetensors.torch.save(state))
        message = refused_name(f"timm/{name}")
        assert message.startswith(f"model timm/{name}: weights do not fit the architecture test_resnet: ")
        place_of_it = Path(constants.HF_HUB_CACHE) / "models--timm--test_resnet.r160_in1k" / "snapshots"
        (place_of_it / commit(TINY) / "model.safetensors").unlink()
        assert len(hub.requests) == 2  # timm asks for nothing by itself
        hub.requests.clear()


# -- repositories of anybody -----------------------------------------------------------------------------------------

NAMES = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"]


def publish(hub: Hub, folder: Path, module: nn.Module, repo: str = "owner/repo", revision: str = "main", **how) -> Path:
    """A repository as timm's push_to_hf_hub uploads it; returns the folder."""
    save_for_hf(module, folder, safe_serialization="both", **how)
    for path in folder.iterdir():
        hub.put(repo, path.name, path.read_bytes(), revision)
    return folder


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/3", COMMIT])
def test_a_repository_of_timms_gives_its_network_labels_and_preprocessing(revision, hub, tmp_path):
    module = timm_net("test_resnet", num_classes=7)
    shape = {"input_size": (3, 96, 96), "crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bilinear"}
    facts = {"label_names": NAMES, "label_descriptions": {"cat": "a cat, tame"}}
    folder = publish(hub, tmp_path / "made", module, revision=revision, model_config=facts, data_config=shape)
    hub.put("owner/repo", "config.json", b"{}", "another")
    model = "hf-hub:owner/repo" + ("" if revision == "main" else f"@{revision}")
    classifier = load(model)
    assert_same_logits(classifier, module)
    assert list(classifier.classes) == [*NAMES[:2], "a cat, tame", *NAMES[3:]]
    assert classifier.name == model
    assert classifier.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert_same_pixels(classifier.preprocess, json.loads((folder / "config.json").read_text())["pretrained_cfg"])
    assert (classifier.preprocess.squash, classifier.preprocess.interp) == (True, "bilinear")
    quoted = revision.replace("/", "%2F")
    asked = [request for request in hub.requests if "resolve" in request]
    assert asked[0] == f"HEAD /owner/repo/resolve/{quoted}/config.json"
    assert all(f"/owner/repo/resolve/{quoted}/" in request for request in asked)
    assert not any("pytorch_model" in request for request in asked)
    count = len(hub.requests)
    assert load(model).id == classifier.id
    assert len(hub.requests) == count


def test_the_arguments_that_a_repository_gives_are_part_of_the_network(hub, tmp_path):
    grey = timm_net("test_resnet", num_classes=7, in_chans=1)
    data = {"mean": (0.4,), "std": (0.2,), "input_size": (1, 96, 96)}
    publish(hub, tmp_path / "grey", grey, "owner/grey", data_config=data)
    classifier = load("hf-hub:owner/grey")
    assert (classifier.preprocess.mean, classifier.preprocess.std) == ((0.4,), (0.2,))
    assert classifier.classes is None
    assert_same_logits(classifier, grey)


def test_networks_that_differ_in_an_argument_only_have_different_ids(hub, tmp_path):
    ids, logits = set(), []
    for number, act in enumerate(("relu", "gelu")):
        module = timm_net("test_resnet", num_classes=7, act_layer=act)
        publish(hub, tmp_path / act, module)
        classifier = load("hf-hub:owner/repo", offline=False)
        assert_same_logits(classifier, module)
        ids.add(classifier.id)
        logits.append(classifier.logits(pixels(1, 3, 64, 64)))
        assert len({classifier.sha256, hub.put("x/x", "model.safetensors", saved(module))}) == 1
        for file in ("config.json", "model.safetensors"):
            place(tmp_path, "owner/repo", file, commit("owner/repo")).unlink()
        assert len(ids) == number + 1
    assert not torch.equal(*logits)


def test_a_thousand_classes_are_imagenets_in_words(hub, tmp_path, tiny):
    imagenet = load_labels("imagenet")
    publish(hub, tmp_path / "plain", tiny, "owner/plain")
    publish(hub, tmp_path / "wnids", tiny, "owner/wnids", model_config={"label_names": list(imagenet.wnids)})
    own = [f"thing {i}" for i in range(1000)]
    publish(hub, tmp_path / "own", tiny, "owner/own", model_config={"label_names": own})
    for repo, names in {"plain": imagenet.names, "wnids": imagenet.names, "own": tuple(own)}.items():
        assert tuple(load(f"hf-hub:owner/{repo}").classes) == names


TIMM = {"architecture": "test_resnet", "num_classes": 1000}
NO_ARCHITECTURE = "its config.json names no timm architecture; only timm models load so"
NOT_NEEDED = "its config.json gives model_args that no network needs: "
NO_FIT = "weights do not fit the architecture test_resnet: "
CONFIGS = {
    "transformers": ({"architectures": ["ResNetForImageClassification"], "model_type": "resnet"}, NO_ARCHITECTURE),
    "no-json": (b"\x80\x02not json", NO_ARCHITECTURE),
    "page": (b"<html>sign in</html>", NO_ARCHITECTURE),
    "deep": (b"[" * 200_000, NO_ARCHITECTURE),
    "list": ([1, 2], NO_ARCHITECTURE),
    "null": (None, NO_ARCHITECTURE),
    "large": (b'{"architecture": "test_resnet", "x": "' + b"x" * (17 * 2**20) + b'"}', NO_ARCHITECTURE),
    "arch-number": ({"architecture": 3}, NO_ARCHITECTURE),
    "arch-path": ({"architecture": "../../etc/passwd"}, NO_ARCHITECTURE),
    "arch-long": ({"architecture": "resnet" * 100_000}, NO_ARCHITECTURE),
    "arch-lines": ({"architecture": "resnet\n18"}, NO_ARCHITECTURE),
    "cfg-list": ({**TIMM, "pretrained_cfg": []}, NO_ARCHITECTURE),
    "args-list": ({**TIMM, "pretrained_cfg": {}, "model_args": [1]}, NO_ARCHITECTURE),
    "features": ({**TIMM, "num_classes": 0}, "these weights are features without a classifier"),
    "classes-word": ({**TIMM, "num_classes": "many"}, NO_FIT),
    "classes-fewer": ({**TIMM, "num_classes": 999}, NO_FIT),
    "classes-huge": ({**TIMM, "num_classes": 10**15}, NO_FIT),
    "classes-large": ({**TIMM, "num_classes": 10**7}, f"{NO_FIT}the network is far larger than its weights"),
}
ARGS = {
    "unknown": ({"no_such": 1}, NO_FIT),
    "wrong": ({"layers": "abc"}, NO_FIT),
    "deep": ({"layers": [99_999, 1, 1, 1]}, f"{NO_FIT}the network is far larger than its weights"),
    "wide": ({"channels": [90_000, 90_000, 90_000, 90_000]}, f"{NO_FIT}the network is far larger than its weights"),
    "huge": ({"layers": [10**9, 1, 1, 1]}, f"{NOT_NEEDED}layers"),
    "infinite": ({"drop_rate": float("inf")}, f"{NOT_NEEDED}drop_rate"),
    "file": ({"checkpoint_path": "/etc/passwd"}, f"{NOT_NEEDED}checkpoint_path"),
    "overlay": ({"pretrained_cfg_overlay": {"url": "http://127.0.0.1:9/x.pth"}}, f"{NOT_NEEDED}pretrained_cfg_overlay"),
    "loose": ({"pretrained_strict": False}, f"{NOT_NEEDED}pretrained_strict"),
    "untrained": ({"pretrained": False}, f"{NOT_NEEDED}pretrained"),
    "folder": ({"cache_dir": "elsewhere", "features_only": True}, f"{NOT_NEEDED}cache_dir, features_only"),
}
INPUTS = {
    "size-text": {"input_size": "abc"},
    "size-short": {"input_size": [3, 224]},
    "size-null": {"input_size": [3, None, None]},
    "size-infinite": {"input_size": [3, float("inf"), float("inf")]},
    "size-huge": {"input_size": [3, 10**6, 10**6]},
    "size-zero": {"input_size": [3, 0, 0]},
    "size-oblong": {"input_size": [3, 100, 200]},
    "channels-huge": {"input_size": [10**12, 64, 64]},
    "channels-word": {"input_size": ["three", 64, 64]},
    "mean-text": {"mean": "abc"},
    "mean-two": {"mean": [0.1, 0.2]},
    "std-zero": {"std": [0, 0, 0]},
    "std-nan": {"std": [float("nan")] * 3},
    "crop-tiny": {"crop_pct": 1e-300},
    "crop-negative": {"crop_pct": -1},
    "mode-border": {"crop_mode": "border"},
    "mode-list": {"crop_mode": ["center"]},
    "interpolation-list": {"interpolation": [["bicubic"]]},
    "interpolation-word": {"interpolation": "random"},
}
BAD = {
    **CONFIGS,
    **{f"args-{k}": ({**TIMM, "pretrained_cfg": {}, "model_args": args}, text) for k, (args, text) in ARGS.items()},
    **{f"input-{k}": ({**TIMM, "pretrained_cfg": cfg}, None) for k, cfg in INPUTS.items()},
}


@pytest.mark.parametrize("case", BAD)
def test_a_repository_with_a_wrong_or_hostile_description_is_one_line(case, hub, tiny):
    config, expected = BAD[case]
    hub.put("owner/repo", "config.json", config if isinstance(config, bytes) else json.dumps(config).encode())
    hub.put("owner/repo", "model.safetensors", saved(tiny))
    message = refused_name("hf-hub:owner/repo")
    assert len(message) < 400
    if expected:
        assert message.startswith(f"model hf-hub:owner/repo: {expected}")
    else:
        assert message.startswith(("timm: ", "preprocess: "))


def test_an_architecture_that_timm_lacks_suggests_the_nearest(hub):
    hub.put("owner/repo", "config.json", b'{"architecture": "test_resnett", "num_classes": 7}')
    assert refused_name("hf-hub:owner/repo").startswith(
        "unknown timm model 'test_resnett'; did you mean 'test_resnet'?"
    )


@pytest.mark.parametrize("labels", [["a"], NAMES[:6], {"0": "a"}, "abcdefg", [[1]] * 7, [None] * 7])
def test_labels_of_another_count_or_kind_are_no_reason_to_fail(labels, hub, tmp_path):
    module = timm_net("test_resnet", num_classes=7)
    folder = publish(hub, tmp_path / "made", module)
    config = json.loads((folder / "config.json").read_text()) | {"label_names": labels}
    hub.put("owner/repo", "config.json", json.dumps(config).encode())
    classes = load("hf-hub:owner/repo").classes
    assert classes is None or (len(labels) == len(classes) == 7 and isinstance(labels, list))


@pytest.mark.parametrize("model", ["hf-hub:repo", "hf-hub:a/b/c", "hf-hub:a b/c", "hf-hub:a/b@", "hf-hub:a/b@ main"])
def test_a_repository_is_written_with_its_owner(model, hub):
    assert refused_name(model) == f"model {model!r}: write hf-hub:OWNER/REPO or hf-hub:OWNER/REPO@REVISION"
    assert hub.requests == []


@pytest.mark.parametrize("repo", ["a/b--c", "-a/b", "a/.b", "a/b.git", "../..", "a/" + "b" * 200])
def test_a_name_that_no_repository_can_have_is_one_line(repo, hub):
    assert refused_name(f"hf-hub:{repo}").startswith(f"model hf-hub:{repo}: download of config.json from {repo} failed")


# -- offline ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["option", "1", "True", "on"])
def offline(request, hub, monkeypatch) -> dict[str, bool]:
    """Options with which nothing may be downloaded."""
    if request.param == "option":
        return {"offline": True}
    monkeypatch.setenv("HF_HUB_OFFLINE", request.param)
    return {}


def test_offline_a_timm_file_loads_from_where_the_message_says(offline, hub, tiny, tmp_path):
    path = place(tmp_path, TINY, "model.safetensors")
    assert refused_name(TINY, **offline) == offline_message(TINY, TINY, path)
    assert not (tmp_path / "hub").exists()
    put_at(path, saved(tiny))
    assert_same_logits(load(TINY, **offline), tiny)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["shufflenet-l2-eps0", "resnet50-linf-eps8"])
def test_offline_a_robust_file_loads_from_where_the_message_says(name, hub, tmp_path):
    file, arch = robust_names()[name]
    path = place(tmp_path, ROBUST, file)
    assert refused_name(f"robust/{name}", offline=True) == offline_message(f"robust/{name}", ROBUST, path)
    if name.startswith("shufflenet"):
        module = drawn(torchvision.models.get_model(arch, weights=None))
        put_at(path, robust_checkpoint(module, tmp_path / "made.ckpt", "model.")[0])
        assert_same_logits(load(f"robust/{name}", offline=True), module)
    assert hub.requests == []


@pytest.mark.parametrize("revision", ["main", "v1", "refs/pr/3", COMMIT])
def test_offline_both_files_of_a_repository_load_from_where_the_messages_say(revision, hub, tmp_path):
    module = timm_net("test_resnet", num_classes=7)
    folder = publish(hub, tmp_path / "made", module, model_config={"label_names": NAMES})
    model = "hf-hub:owner/repo" + ("" if revision == "main" else f"@{revision}")
    for file in ("config.json", "model.safetensors"):
        path = place(tmp_path, "owner/repo", file, revision)
        assert refused_name(model, offline=True) == offline_message(model, "owner/repo", path)
        put_at(path, (folder / file).read_bytes())
    classifier = load(model, offline=True)
    assert_same_logits(classifier, module)
    assert list(classifier.classes) == NAMES
    assert hub.requests == []


def test_offline_the_other_format_may_lie_there_instead(hub, tiny, tmp_path):
    put_at(place(tmp_path, TINY, "pytorch_model.bin"), torch_saved(tiny.state_dict(), tmp_path / "net.bin"))
    assert_same_logits(load(TINY, offline=True), tiny)


@pytest.mark.parametrize("revision", ["main", "v1", "refs/pr/3"])
def test_offline_the_advice_follows_the_commit_that_the_cache_knows(revision, hub, tmp_path):
    module = timm_net("test_resnet", num_classes=7)
    folder = publish(hub, tmp_path / "made", module, revision=revision)
    del hub.files["owner/repo", revision]["model.safetensors"], hub.files["owner/repo", revision]["pytorch_model.bin"]
    model = "hf-hub:owner/repo" + ("" if revision == "main" else f"@{revision}")
    assert refused_name(model) == (
        f"model {model}: repository owner/repo has no model.safetensors and no pytorch_model.bin"
    )
    known = tmp_path / "hub" / "models--owner--repo" / "refs" / revision
    assert known.read_text() == commit("owner/repo", revision)
    path = place(tmp_path, "owner/repo", "model.safetensors", commit("owner/repo", revision))
    asked = len(hub.requests)
    assert refused_name(model, offline=True) == offline_message(model, "owner/repo", path)
    put_at(path, (folder / "model.safetensors").read_bytes())
    assert_same_logits(load(model, offline=True), module)
    assert len(hub.requests) == asked


# -- servers that fail -----------------------------------------------------------------------------------------------


def is_blob(handler: Handler) -> bool:
    return handler.path.startswith("/blobs/")


def broken(handler: Handler) -> bool:
    handler.send(b"oops", 500)
    return True


def broken_store(handler: Handler) -> bool:
    return is_blob(handler) and broken(handler)


def no_store(handler: Handler) -> bool:
    if is_blob(handler):
        handler.send(b"", 404)
    return is_blob(handler)


def gated(handler: Handler) -> bool:
    handler.send(b"", 403, **{"X-Error-Code": "GatedRepo"})
    return True


def portal(handler: Handler) -> bool:
    """A proxy that answers everything with a page of its own."""
    handler.send(b"<html>sign in</html>", 200, **{"Content-Type": "text/html"})
    return True


def silent(handler: Handler) -> bool:
    handler.close_connection = True
    return True


def short(handler: Handler) -> bool:
    """Less than was promised, in good order."""
    if is_blob(handler):
        handler.send(b"x" * 1000)
    return is_blob(handler)


def cut(handler: Handler) -> bool:
    """The connection breaks after a thousand bytes, and whatever is asked for later."""
    if not is_blob(handler):
        return False
    handler.send_response(206 if "Range" in handler.headers else 200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    if "Range" not in handler.headers:
        handler.wfile.write(b"x" * 1000)
    handler.close_connection = True
    return True


FAULTS = {
    broken: r"download of model.safetensors from REPO failed \(Server error '500 .*\); PUT",
    broken_store: r"download of model.safetensors from REPO failed \(Server error '500 .*\); PUT",
    no_store: r"download of model.safetensors from REPO failed \(Client error '404 .*\); PUT",
    gated: r"the hub has no repository REPO that is open to you; PUT",
    portal: r"download of model.safetensors from REPO failed \(Response from .* is missing the 'X-Repo-Commit' .*; PUT",
    silent: r"download of model.safetensors from REPO failed \(Server disconnected without sending a response.\); PUT",
    short: r"download of model.safetensors from REPO failed \(Consistency check failed: .* has size 1000 .*\); PUT",
    cut: r"download of model.safetensors from REPO failed \(peer closed connection .*\); PUT",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_server_that_fails_is_one_line_and_leaves_nothing_behind(fault, hub, tiny, tmp_path, capfd):
    hub.put(TINY, "model.safetensors", saved(tiny))
    hub.fault = fault
    path = place(tmp_path, TINY, "model.safetensors")
    message = refused_name(TINY)
    if (tmp_path / "hub" / "models--timm--test_resnet.r160_in1k" / "refs" / "main").exists():
        path = place(tmp_path, TINY, "model.safetensors", commit(TINY))
    pattern = FAULTS[fault].replace("REPO", TINY).replace("PUT", "put .* at .*/snapshots/.*/model.safetensors$")
    assert re.match(f"model {TINY}: {pattern}", message), message
    assert sum(hub.waits) < 60
    assert capfd.readouterr() == ("", "")
    assert not list((tmp_path / "hub").rglob("*.incomplete"))
    assert refused_name(TINY, offline=True) == offline_message(TINY, TINY, path)
    hub.fault = lambda handler: False
    assert_same_logits(load(TINY), tiny)


def test_a_download_that_breaks_off_is_taken_up_again(hub, tiny):
    content = saved(tiny)
    digest = hub.put(TINY, "model.safetensors", content)

    def break_off(handler: Handler) -> bool:
        if sum("/blobs/" in request for request in hub.requests) != 1:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:100_000])
        handler.close_connection = True
        return True

    hub.fault = break_off
    classifier = load(TINY)
    assert classifier.sha256 == digest
    assert_same_logits(classifier, tiny)
    assert hub.requests.count(f"GET /blobs/{digest}") == 2


def test_no_connection_is_one_line(hub, monkeypatch, tmp_path):
    hub.close()
    for model, file in ((TINY, "model.safetensors"), ("robust/resnet18-l2-eps3", "resnet18_l2_eps3.ckpt")):
        repo = ROBUST if model.startswith("robust") else model
        assert refused_name(model) == (
            f"model {model}: download of {file} from {repo} failed ([Errno 111] Connection refused); put {file} of "
            f"{repo} at {place(tmp_path, repo, file)}"
        )
    assert sum(hub.waits) < 120


def test_what_the_hub_lacks_is_named(hub, tmp_path):
    works = f"put config.json of owner/none at {place(tmp_path, 'owner/none', 'config.json')}"
    assert refused_name("hf-hub:owner/none") == (
        f"model hf-hub:owner/none: the hub has no repository owner/none that is open to you; {works}"
    )
    hub.put("owner/repo", "README.md", b"empty")
    assert refused_name("hf-hub:owner/repo") == "model hf-hub:owner/repo: repository owner/repo has no config.json"
    assert refused_name("hf-hub:owner/repo@v9") == (
        "model hf-hub:owner/repo@v9: repository owner/repo has no revision v9"
    )
    hub.put(ROBUST, "resnet18_l2_eps0.ckpt", b"")
    assert refused_name("robust/resnet18-l2-eps3") == (
        f"model robust/resnet18-l2-eps3: repository {ROBUST} has no resnet18_l2_eps3.ckpt"
    )


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\n", b""])
def test_a_download_that_is_no_checkpoint_is_recognised(content, hub):
    hub.put(ROBUST, "resnet18_l2_eps3.ckpt", content)
    assert re.search(
        "resnet18_l2_eps3.ckpt: (a web page|a Git LFS pointer|the file is empty)",
        refused_name("robust/resnet18-l2-eps3"),
    )


# -- the command line ------------------------------------------------------------------------------------------------


def command(hub: Hub, tmp_path: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """`attrsens explain` on a sample, in a process of its own that knows the server by its environment."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    env |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    argv = [sys.executable, "-m", "attrsens", "explain", "sample:coffee", "--method", "grad", "--no-cache"]
    return subprocess.run([*argv, "--out", str(tmp_path / "out"), *args], env=env, capture_output=True, text=True)


def test_on_the_command_line_a_repository_is_downloaded_stated_and_explained(hub, tmp_path):
    module = timm_net("test_resnet", num_classes=7)
    folder = publish(hub, tmp_path / "made", module, model_config={"label_names": NAMES})
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    done = command(hub, tmp_path, "--model", "hf-hub:owner/repo", "--sha256", digest)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^attrsens: downloaded .*model.safetensors \([\d.]+ MB, sha256 {digest}\)$", done.stderr, re.M)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (record,) = report["records"]
    assert record["model"]["name"] == "hf-hub:owner/repo"
    assert record["target"]["label"] in NAMES
    assert sum("/blobs/" in request for request in hub.requests) == 1


@pytest.mark.parametrize(
    ("args", "repo", "file"),
    [
        (("--model", "robust/resnet50-l2-eps3", "--offline"), ROBUST, "resnet50_l2_eps3.ckpt"),
        (("--model", TINY, "--offline"), TINY, "model.safetensors"),
    ],
)
def test_on_the_command_line_offline_is_one_line_with_the_file_and_its_place(args, repo, file, hub, tmp_path):
    done = command(hub, tmp_path, *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"attrsens: {offline_message(args[1], repo, place(tmp_path, repo, file))}\n"
    assert not (tmp_path / "out" / "report.json").exists()
    assert hub.requests == []

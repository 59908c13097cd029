"""The doctor: what it says of a model, and whether what it predicts comes true."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import zoo
from conftest import DATA, needs_data
from scipy.stats import spearmanr
from torch import Tensor, nn
from toys import SmallNet, uniform

import attrsens
from attrsens.engine import doctor as doctor_module
from attrsens.engine.diagnosis import Diagnosis
from attrsens.engine.doctor import doctor
from attrsens.engine.sanity import Reading, Sanity, judge, sanity
from attrsens.models.census import Facts, take_census
from attrsens.spec import METHODS

IMAGENET = "mean=0.485,0.456,0.406,std=0.229,0.224,0.225"


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    monkeypatch.setattr(doctor_module, "SPEED", 0.1)


@pytest.fixture(scope="module")
def found() -> Diagnosis:
    return doctor("lite0", device="cpu")


def small(net: nn.Module, **options: object) -> attrsens.Classifier:
    options = {"resize": 32, "crop": 32, "fold": False, "device": "cpu"} | options
    return attrsens.Classifier(net, [0.45] * 3, [0.25] * 3, **options)


# -- what was loaded -------------------------------------------------------------------------------------------------


def test_the_default_model_is_told_whole_and_sound(found: Diagnosis) -> None:
    m = found.model
    assert (m.name, m.architecture, m.layout, m.classes) == ("lite0", "lite0", ["torch.save"], 1000)
    assert m.sha256 == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    assert m.id == attrsens.load("lite0", device="cpu").id
    assert m.parameters == 4_652_008
    assert (m.preprocess["mean"], m.preprocess["crop"]) == ([0.5] * 3, 224)
    assert found.problems == []
    assert found.repeatable
    assert found.batch_difference < 1e-5
    assert found.census.relus == found.census.functional == 33
    assert (found.census.in_place, found.census.reused, found.census.output) == (0, [], "tensor")
    assert (found.gradients.state, found.gradients.saturated) == ("ok", False)
    assert (found.form.folded, found.form.left, found.form.memory_layout) == (49, {}, "channels_last")
    assert all(v.works and v.reason is None for v in found.methods)
    assert [v.method for v in found.methods] == list(METHODS)
    sp, ig = (next(v for v in found.methods if v.method == name) for name in ("sp", "ig"))
    assert (sp.forward, sp.backward, ig.forward, ig.backward) == (4357, 0, 51, 51)
    assert sp.seconds == pytest.approx(4357 / found.speed.forward)
    assert ig.seconds == pytest.approx(51 / found.speed.gradient)
    assert found.speed.gradient < found.speed.forward <= found.speed.floor_forward
    assert found.speed.gradient <= found.speed.floor_gradient
    assert set(found.definitions) >= {"noise_floor", "sanity.divergence", "batch_difference", "speed"}


def test_the_doctor_changes_neither_network_nor_process() -> None:
    net = SmallNet("inplace")
    f = small(net, copy_module=False)
    weights = {k: v.clone() for k, v in net.state_dict().items()}
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules()]
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    doctor(f)
    assert all(torch.equal(v, weights[k]) for k, v in net.state_dict().items())
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules()] == hooks
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
    assert any(isinstance(m, nn.BatchNorm2d) for m in net.modules())


def test_a_folded_classifier_is_refused() -> None:
    with pytest.raises(attrsens.AttrsensError, match="made with fold=False"):
        doctor(small(SmallNet("reused"), fold=True))


# -- fed what it was trained on --------------------------------------------------------------------------------------


def look(f: attrsens.Classifier) -> Sanity:
    return sanity(f, *doctor_module.pictures(f))


def test_a_wrong_mean_and_std_are_caught_by_the_first_batchnorm() -> None:
    wrong = doctor("lite0", preprocess=IMAGENET, device="cpu")
    assert [p[:51] for p in wrong.problems] == ["mean and std look wrong: the first BatchNorm was tr"]
    assert "inputs like mean=0.5 std=0.5 (divergence" in wrong.problems[0]
    own, best = wrong.sanity.readings[0], min(wrong.sanity.readings, key=lambda r: r.divergence)
    assert best.name == "mean=0.5 std=0.5"
    assert own.divergence > 0.5 > 0.1 > best.divergence
    for mean, std in ((0, 1), (0, 1 / 255)):
        text = f"mean={mean},{mean},{mean},std={std},{std},{std}"
        f = attrsens.load("lite0", preprocess=text, device="cpu", fold=False)
        assert any("mean and std look wrong" in p for p in look(f).suspicions)


class Without(nn.Module):
    """lite0 behind something, without a BatchNorm that could be looked at."""

    def __init__(self, before=lambda x: x) -> None:
        super().__init__()
        fast = attrsens.load("lite0", device="cpu")
        fast.logits(uniform(1, 3, 224, 224))  # folds
        self.net, self.before = fast.network, before

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.before(x))


def as_lite0(net: nn.Module, **options: object) -> attrsens.Classifier:
    base = attrsens.load("lite0", device="cpu")
    options = {"resize": 256, "crop": 224, "interp": "bicubic", "classes": base.classes, "fold": False} | options
    return attrsens.Classifier(net, [0.5] * 3, [0.5] * 3, device="cpu", **options)


def test_swapped_channels_are_caught_by_the_pictures() -> None:
    swapped = look(as_lite0(Without(lambda x: x.flip(1))))
    assert [p.partition(":")[0] for p in swapped.suspicions] == ["channels look swapped"]
    assert look(as_lite0(Without())).suspicions == []


def test_without_a_batchnorm_the_pictures_judge_the_mean_and_std() -> None:
    wrong = look(as_lite0(Without(lambda x: x * 255 + 100))).suspicions
    assert any(p.startswith("mean and std look wrong: the pictures' classes are likelier with") for p in wrong)


def test_a_network_that_recognises_nothing_is_told(found: Diagnosis) -> None:
    assert found.sanity.pictures == 9
    assert found.sanity.readings[0].right >= 7
    shuffled = Without()
    shuffled.net.classifier.weight.data = shuffled.net.classifier.weight.data.roll(500, 0)
    suspicions = look(as_lite0(shuffled)).suspicions
    assert any(p.startswith("only 0 of 9 packaged pictures are recognised") for p in suspicions)


def test_what_no_picture_shows_is_said_to_be_unchecked() -> None:
    assert look(zoo.classifier("mnist-lenet", fold=False)).unchecked == [
        "mean and std: packaged pictures are photographs, and one channel means other pictures",
        "top-1 and channel order: no packaged picture shows these classes",
    ]


@needs_data
@pytest.mark.parametrize("name", ["cifar10-resnet20", "cifar10-resnet32", "cifar10-resnet32-adv-linf"])
def test_trained_cifar_networks_are_sound_and_badly_fed_ones_caught(name: str) -> None:
    path = f"{DATA}/models/{name}.safetensors"
    good = doctor(path, device="cpu")
    assert good.problems == []
    assert good.sanity.readings[0].divergence < 0.1
    for steps in ("mean=0.5,0.5,0.5,std=0.5,0.5,0.5", "mean=0,0,0,std=1,1,1"):
        f = attrsens.load(path, preprocess=steps, device="cpu", fold=False)
        assert "mean and std look wrong" in look(f).suspicions[0]


# -- predictions come true -------------------------------------------------------------------------------------------


class Cut(SmallNet):
    """No gradient reaches the input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach()) + 0 * self.fc.weight.sum()


class Steps(SmallNet):
    """Rounds its input: every gradient is zero."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.round(x * 4) / 4 + 0 * x)


class Infinite(SmallNet):
    """Finite logits, infinite slope."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.sqrt((x - x.detach()).abs()).sum((1, 2, 3))[:, None]


class NoWayBack(SmallNet):
    """Its backward pass fails."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if y.requires_grad:
            y.register_hook(self.fail)
        return y

    @staticmethod
    def fail(gradient: Tensor) -> Tensor:
        raise RuntimeError("no way back")


TROUBLE = {
    "cut": (Cut, "no gradient path", "its logits have no gradient path to the input"),
    "steps": (Steps, "its map would be zero", "its gradient is zero everywhere on every picture, and around them"),
    "infinite": (Infinite, "gradients are not finite", "its gradient is not finite on a picture"),
    "way back": (NoWayBack, "the way back fails", "model nowayback fails on the way back: no way back"),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_what_the_doctor_says_of_troubled_networks_then_happens(name: str) -> None:
    kind, reason, problem = TROUBLE[name]
    f = small(kind("reused"))
    found = doctor(f)
    assert problem in found.problems
    for verdict in found.methods:
        traits = METHODS[verdict.method].traits
        gradient = traits["gradient"] and not (traits.get("inner") and name in ("steps", "infinite"))
        assert verdict.works is not gradient
        assert bool(verdict.reason) is gradient
        if verdict.method in ("grad", "gi", "sg", "ig"):
            assert verdict.reason.startswith(reason)
        happens = ("failure", "zero") if gradient else ("map",)
        if verdict.method == "mp" and name == "steps":
            happens = ("map",)  # the mask that it began with
        assert zoo.outcome(f, zoo.cheap(verdict.method)) in happens, verdict


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny", "swin_tiny", "cifar-resnet20", "mnist-lenet", "mnist-cnn"])
def test_what_the_doctor_says_of_sound_networks_then_happens(name: str) -> None:
    f = zoo.classifier(name, fold=False)
    found = doctor(f)
    assert found.gradients.state == "ok"
    for verdict in found.methods:
        if verdict.works:
            assert zoo.outcome(f, zoo.cheap(verdict.method)) == "map", verdict
            continue
        if verdict.method == "sp":
            with pytest.raises(attrsens.AttrsensError) as caught:
                attrsens.explain("sample:coffee", model=f, method=verdict.method, cache=False)
            assert str(caught.value) == verdict.reason
        else:
            assert zoo.outcome(f, zoo.cheap(verdict.method)) == "failure", verdict
    propagation = {"gbp", "ggradcam", "lrp", "deeplift"} if name in ("vit_tiny", "swin_tiny") else set()
    patch = {"sp"} if name.startswith("mnist") else set()
    assert {v.method for v in found.methods if not v.works} == propagation | patch


class Threshold(SmallNet):
    """Hears nothing of a picture, and of a brighter one all."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.relu(x - 4 * 0.55))


def test_a_gradient_that_is_zero_at_the_pictures_alone_condemns_what_looks_there_alone() -> None:
    f = small(Threshold("reused"))
    found = doctor(f)
    assert found.gradients.state == "zero here"
    assert "its gradient is zero everywhere on every picture, though not around them" in found.problems
    works = {v.method: v.works for v in found.methods}
    assert (works["grad"], works["gi"], works["sg"]) == (False, False, True)
    assert (zoo.outcome(f, "grad"), zoo.outcome(f, "gi"), zoo.outcome(f, "sg:spread=0.5")) == ("zero", "zero", "map")


def test_a_picture_with_a_zero_gradient_is_noted() -> None:
    class Dark(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.relu(x.mean((1, 2, 3), keepdim=True) + 0.2).expand_as(x))

    found = doctor(small(Dark("reused")))
    assert found.gradients.state == "ok"
    assert 0 < found.gradients.flat < doctor_module.FEW
    assert any(n.startswith(f"on {found.gradients.flat} of 4 pictures its gradient is zero") for n in found.notes)
    assert all(v.works for v in found.methods)


class Numpy(SmallNet):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.from_numpy(x.numpy()))


class OneByOne(SmallNet):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).view(1, 5)


class Locked(SmallNet):
    def __deepcopy__(self, memo: object) -> SmallNet:
        raise TypeError("cannot pickle '_thread.lock' object")


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (Numpy, "activations cannot be examined: Can't call numpy() on Tensor that requires grad"),
        (OneByOne, "batches cannot be examined: shape '[1, 5]' is invalid for input of size"),
        (Locked, "folding and speed cannot be examined: model locked cannot be copied (cannot pickle '_thread.lock'"),
    ],
)
def test_a_step_that_fails_is_a_problem_and_the_others_go_on(kind: type[nn.Module], problem: str) -> None:
    found = doctor(small(kind("reused"), copy_module=False))
    assert any(p.startswith(problem) for p in found.problems), found.problems
    assert found.sanity is not None or kind is OneByOne
    assert len(found.methods) == len(METHODS)


class Leaves(SmallNet):
    def forward(self, x: Tensor) -> Tensor:
        raise SystemExit(7)


class Mapping(SmallNet):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": super().forward(x)}


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (Leaves, "model leaves fails on an image of shape (3, 32, 32): 7"),
        (Mapping, "model mapping returns a dict; a ten"),
    ],
)
def test_networks_that_leave_or_return_no_tensor_are_one_line(kind: type[nn.Module], problem: str) -> None:
    assert doctor(small(kind("reused"))).problems[0].startswith(problem)


@pytest.mark.parametrize(("right", "told"), [(3, True), (4, False)])
def test_few_recognised_pictures_are_told(right: int, told: bool) -> None:
    own = Reading("as loaded", (0.5,) * 3, (0.5,) * 3, "as loaded", 0.05, -1.0, right)
    out = Sanity([own], 9)
    judge(out, own)
    assert bool(out.suspicions) is told


def test_a_saturated_probability_is_foretold() -> None:
    class Sure(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 1e6

    f = small(Sure("reused"))
    found = doctor(f)
    assert found.gradients.saturated
    verdict = next(v for v in found.methods if v.method == "ig")
    assert verdict.reason == "where the probability is saturated its map is zero; output=logit is not"
    assert zoo.outcome(f, "grad:output=prob") == "zero"
    assert zoo.outcome(f, "grad:output=logit") == "map"


def test_a_method_says_itself_what_it_cannot_bear() -> None:
    def lacking(facts: Facts) -> str | None:
        return None if facts.census.relus else "it has no ReLU to guide through"

    @METHODS("guided_of_a_test", version=1, gradient=True, cost="1 F + 1 B", unfit=lacking)
    def guided(f, x, target):
        """Needs a ReLU."""
        return f.gradient(x, target)

    try:
        for name, reason in (("resnet18", None), ("vit_tiny", "it has no ReLU to guide through")):
            found = doctor(zoo.classifier(name, fold=False))
            (verdict,) = (v for v in found.methods if v.method == "guided_of_a_test")
            assert (verdict.works, verdict.reason) == (reason is None, reason)
    finally:
        METHODS.remove("guided_of_a_test")


def test_a_network_that_no_picture_fits_is_told_and_nothing_else_tried() -> None:
    f = small(nn.Sequential(nn.Flatten(), nn.Linear(7, 3)), name="odd")
    found = doctor(f)
    assert len(found.problems) == 1
    assert found.problems[0].startswith("model odd fails on an image of shape (3, 32, 32)")
    assert not any(v.works for v in found.methods)
    assert found.census is None


# -- mode, batch, activations ----------------------------------------------------------------------------------------


def test_chance_and_coupled_batches_are_caught() -> None:
    class Chance(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(F.dropout(x, 0.5, training=True))

    class Coupled(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - x.mean(0, keepdim=True) / 2)

    with torch.random.fork_rng(devices=[]):
        chance = doctor(small(Chance("reused")))
    assert not chance.repeatable
    assert any("draws at random" in p for p in chance.problems)
    coupled = doctor(small(Coupled("reused")))
    assert coupled.repeatable
    assert any("with others in its batch" in p for p in coupled.problems)
    batch_statistics = SmallNet("reused")
    batch_statistics.bn1.track_running_stats = False
    batch_statistics.bn1.running_mean = batch_statistics.bn1.running_var = None
    assert any("with others in its batch" in p for p in doctor(small(batch_statistics)).problems)


def test_a_module_that_stays_in_training_mode_is_named() -> None:
    class Stubborn(SmallNet):
        def train(self, mode: bool = True) -> SmallNet:
            super().train(mode)
            self.bn2.training = True
            return self

    found = doctor(small(Stubborn("reused")))
    assert found.census.training == ["bn2"]
    assert "1 modules stay in training mode: bn2" in found.problems


@pytest.mark.parametrize(
    ("style", "expected"),
    [("functional", (2, 2, 0, [])), ("inplace", (2, 0, 2, ["relu"])), ("reused", (2, 0, 0, ["relu"]))],
)
def test_activations_are_counted_by_style(style: str, expected: tuple[int, int, int, list[str]]) -> None:
    net = SmallNet(style).eval()
    census = take_census(net, uniform(2, 3, 16, 16))
    assert (census.relus, census.functional, census.in_place, census.reused) == expected
    assert census.layers["Conv2d"] == 2


def test_the_census_of_other_kinds() -> None:
    vit, mobile = (take_census(zoo.build(n), zoo.images(n, 1)) for n in ("vit_tiny", "mobilenet_v3_small"))
    assert vit.relus == 0
    assert vit.others["gelu"] == 12
    assert sum(vit.attention.values()) >= 12
    assert mobile.others["hardswish"] == 19
    assert mobile.relus == 14
    google = take_census(zoo.build("googlenet"), zoo.images("googlenet", 1))
    assert (google.relus, google.functional) == (57, 57)
    resnet = take_census(zoo.build("resnet18"), zoo.images("resnet18", 1))
    assert (resnet.relus, resnet.in_place, len(resnet.reused)) == (17, 17, 8)


def test_tuples_and_unfolded_norms_are_noted() -> None:
    class Pair(SmallNet):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(x), x

    assert "it returns a tuple of 2; the first is taken for the logits" in doctor(small(Pair("reused"))).notes
    notes = doctor(zoo.classifier("densenet121", fold=False)).notes
    assert "62 BatchNorms stay unfolded: follows no convolution" in notes


# -- the noise floor -------------------------------------------------------------------------------------------------


def test_the_noise_floor_is_what_two_runs_differ_by(found: Diagnosis) -> None:
    moves = {m.change.partition(":")[0]: m for m in found.noise_floor}
    assert set(moves) == {"threads", "batch", "layout", "fold", "the default form, against --no-fold"}
    plain, fast = (attrsens.load("lite0", device="cpu", fold=fold) for fold in (False, True))
    pixels, _ = doctor_module.pictures(plain)
    worst = [0.0, 0.0, 0.0]
    for image in pixels[: doctor_module.FEW]:
        target = int(plain.logits(image[None]).argmax())
        a, b = (f.gradient(image, target).mean(0).flatten().double() for f in (plain, fast))
        rank = spearmanr(a.numpy(), b.numpy()).statistic
        each = (float((a - b).norm() / a.norm()), 1 - float(F.cosine_similarity(a, b, 0)), 1 - rank)
        worst = [max(w, e) for w, e in zip(worst, each, strict=True)]
    stated = moves["the default form, against --no-fold"]
    assert [stated.l2, stated.cosine, stated.spearman] == pytest.approx(worst, rel=0.3, abs=1e-6)
    assert 0 < moves["threads"].l2 + moves["batch"].l2 < 0.1
    assert all(m.reason is None for m in found.noise_floor)


def test_a_form_that_fails_has_its_reason_in_the_noise_floor() -> None:
    class Views(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv1(x).view(len(x), -1).reshape(len(x), 8, -1).mean(2))

    found = doctor(small(Views("reused")))
    layout = next(m for m in found.noise_floor if m.change.startswith("layout"))
    assert layout.l2 is None
    assert layout.reason.startswith("view size is not compatible")
    assert found.form.memory_layout == "plain"
    assert any("it runs in plain memory order: channels_last fails" in n for n in found.notes)


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_text_or_json(run_cli) -> None:
    code, text, err = run_cli("doctor", "lite0")
    assert (code, err) == (0, "")
    lines = "model        lite0", "sha256       5793442", "no problem found", "noise floor ", "sp +works +4357 F"
    assert [line for line in lines if not re.search(f"^{line}", text, re.M)] == []
    code, out, err = run_cli("doctor", "lite0", "--json", "-")
    assert (code, err) == (0, "")
    data = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert data["schema_version"] == 1
    assert data["model"]["preprocess"]["crop"] == 224
    assert {m["method"] for m in data["methods"]} == set(METHODS)
    assert len(data["noise_floor"]) == 5
    assert not any(isinstance(v, float) and math.isnan(v) for m in data["noise_floor"] for v in m.values())


def test_the_command_refuses_what_it_cannot_load(run_cli, tmp_path: Path) -> None:
    for arguments, message in (
        (["resnet5O"], "unknown model 'resnet5O'; did you mean 'resnet50'?"),
        (["none.pt"], "model: no file none.pt"),
        (["lite0", "--device", "gpu"], "unknown device 'gpu'"),
        (["lite0", "--arch", "resnet50"], "arch resnet50: only a model from a file has use for it"),
        (["lite0", "--preprocess", "bogus=1"], "preprocess has no setting 'bogus'"),
        (["lite0", "--classes", "nofile"], "classes: no file nofile"),
        (["lite0", "--sha256", "abc"], "sha256 must be 64 hexadecimal digits; got 'abc'"),
        (["lite0", "--sha256", "0" * 64], "model lite0: its sha256 is 579344248a93e23026e6b78f1f6faf0bc1d282386f6c88"),
    ):
        code, out, err = run_cli("doctor", *arguments)
        assert (code, out) == (2, "")
        assert err.startswith(f"attrsens: {message}")
        assert err.count("\n") == 1


def test_what_a_network_prints_does_not_reach_the_json(tmp_path: Path, monkeypatch, run_cli) -> None:
    (tmp_path / "chatty_net_of_a_test.py").write_text(
        "from torch import nn\nclass Chatty(nn.Linear):\n    def forward(self, x):\n        print('hello')\n"
        "        return super().forward(x.flatten(1))\ndef build():\n    return Chatty(48, 3)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.save(nn.Linear(48, 3).state_dict(), "net.pt")
    options = ["--arch", "py:chatty_net_of_a_test:build", "--preprocess", "resize=4,crop=4", "--json", "-"]
    for arguments in (["doctor", "net.pt", *options], ["explain", "sample:coffee", "--model", "net.pt", *options]):
        code, out, err = run_cli(*arguments)
        assert code == 0
        json.loads(out)
        assert "hello" in err


def test_a_problem_is_no_failure_of_the_command(run_cli) -> None:
    code, text, _ = run_cli("doctor", "lite0", "--preprocess", IMAGENET)
    assert code == 0
    assert "\nPROBLEM      mean and std look wrong" in text
    assert "no problem found" not in text

"""The store: what is committed is read back whole or not at all, whatever happens to the process or the disk."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attrsens.engine.cell import Call, Cell, parse_call
from attrsens.engine.store import Store
from attrsens.errors import AttrsensError
from attrsens.places import cache_folder


def key_of(i: int) -> str:
    return hashlib.sha256(str(i).encode()).hexdigest()


def arrays_of(i: int, side: int = 8) -> dict[str, np.ndarray]:
    return {"map": np.random.default_rng(i).standard_normal((3, side, side)).astype(np.float32)}


def put(store: Store, i: int) -> bool:
    return store.put(key_of(i), arrays_of(i), {"i": i, "notes": {"gap": 0.5, "none": None}})


def files_below(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file()) if folder.exists() else []


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder) -> Store:
    return Store(folder)


# -- round trip ------------------------------------------------------------------------------------------------------


def test_a_cell_comes_back_as_it_was(store, folder):
    arrays = {
        "map": arrays_of(1)["map"],
        "turned": arrays_of(2)["map"].transpose(2, 1, 0),
        "indices": np.arange(5),
        "flags": np.array([True, False]),
        "one": np.array(3.5),
    }
    data = {"name": "m\u00f6we \u2603\nnew line", "list": [1, 2.5, None, True], "nested": {"b": 1, "a": []}}
    assert store.put(key_of(1), arrays, data)
    for reader in (store, Store(folder)):
        entry = reader.get(key_of(1))
        assert entry.data == data
        assert entry.arrays.keys() == arrays.keys()
        for name, array in arrays.items():
            assert entry.arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(entry.arrays[name], array)
    assert key_of(1) in store
    assert key_of(2) not in store
    assert store.get(key_of(2)) is None


def test_nothing_is_created_before_something_is_written(store, folder):
    assert store.get(key_of(1)) is None
    assert key_of(1) not in store
    assert store.keys() == []
    assert store.size() == (0, 0)
    assert store.verify() == (0, 0)
    assert store.trim() == 0
    assert store.clear() == (0, 0)
    assert not folder.exists()
    put(store, 1)
    assert folder.exists()


def test_nothing_temporary_stays(store, folder):
    for i in range(3):
        put(store, i)
    assert [p.name for p in files_below(folder)] == sorted(
        (f"{key_of(i)}.safetensors" for i in range(3)), key=lambda name: (name[:2], name)
    )
    assert store.keys() == sorted(key_of(i) for i in range(3))
    assert store.size() == (3, sum(p.stat().st_size for p in files_below(folder)))


def test_the_first_result_stays_when_a_key_is_written_again(store, folder):
    put(store, 1)
    (path,) = files_below(folder)
    before = path.stat().st_ino
    assert put(Store(folder), 1)
    assert path.stat().st_ino == before
    assert files_below(folder) == [path]


def test_the_folder_is_the_cache_home_of_the_system(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "attrsens"
    assert Store().folder.is_relative_to(tmp_path / "xdg" / "attrsens")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "attrsens"


def test_clear_removes_every_cell_and_what_was_set_aside(store, folder):
    for i in range(3):
        put(store, i)
    store.path(key_of(0)).write_bytes(b"")
    assert store.get(key_of(0)) is None
    size = store.size()
    assert size[0] == 2
    assert store.clear() == size
    assert files_below(folder) == []


def test_clear_says_what_it_cannot_remove(store, folder, monkeypatch):
    put(store, 1)

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(AttrsensError, match=r"cache: .*store.* cannot be cleared \(Permission denied\)"):
        store.clear()


# -- damage ----------------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def cut_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("something else\n" * 50)


def huge_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 7 + b"\x00" + b"{}" * 100)


def foreign(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"map": np.zeros((3, 8, 8), np.float32)}, path)


def foreign_half(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"map": torch.zeros(3, 8, 8, dtype=torch.bfloat16)}, path)


def other_key(path: Path) -> None:
    folder = path.parents[2]
    other = Store(folder.parent / "other")
    put(other, 99)
    path.write_bytes(other.path(key_of(99)).read_bytes())


DAMAGE = (flip, cut, cut_header, empty, text, huge_header, foreign, foreign_half, other_key)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_a_damaged_file_is_set_aside_counted_and_computed_again(damage, store, folder, caplog):
    put(store, 1)
    put(store, 2)
    path = store.path(key_of(1))
    damage(path)
    harmed = path.read_bytes()
    with caplog.at_level(logging.WARNING, "attrsens"):
        assert store.get(key_of(1)) is None
    assert store.damaged == 1
    assert not path.exists()
    assert key_of(1) not in store
    aside = store.folder / "damaged" / path.name
    assert aside.read_bytes() == harmed
    (record,) = caplog.records
    assert record.getMessage().startswith(f"cache: {path} is damaged (")
    assert record.getMessage().endswith("); set aside, the cell is computed again")
    assert store.keys() == [key_of(2)]
    # computed again
    assert put(store, 1)
    np.testing.assert_array_equal(store.get(key_of(1)).arrays["map"], arrays_of(1)["map"])
    assert store.damaged == 1


def test_no_flipped_bit_anywhere_in_a_file_goes_unseen(store):
    key = key_of(1)
    store.put(key, {"map": np.arange(6, dtype=np.float32)}, {"i": 1})
    path = store.path(key)
    sound = path.read_bytes()
    for at in range(len(sound)):
        harmed = bytearray(sound)
        harmed[at] ^= 1 << (at % 8)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(harmed)
        assert store.get(key) is None, f"byte {at}"
    assert store.damaged == len(sound)
    path.write_bytes(sound)
    assert store.get(key).data == {"i": 1}


def test_a_file_under_another_keys_name_is_not_that_cell(store):
    put(store, 1)
    wrong = store.path(key_of(2))
    wrong.parent.mkdir(exist_ok=True)
    wrong.write_bytes(store.path(key_of(1)).read_bytes())
    assert store.get(key_of(2)) is None
    assert store.damaged == 1
    assert store.get(key_of(1)) is not None


def test_verify_counts_and_sets_aside(store, folder):
    for i in range(5):
        put(store, i)
    flip(store.path(key_of(1)))
    empty(store.path(key_of(3)))
    assert store.verify() == (3, 2)
    assert len(files_below(store.folder / "damaged")) == 2
    assert Store(folder).verify() == (3, 0)


# -- disks that fail -------------------------------------------------------------------------------------------------


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(store, folder, caplog, monkeypatch):
    assert put(store, 0)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level(logging.WARNING, "attrsens"):
        for i in (1, 2, 3):
            assert put(store, i) is False
    assert [r.getMessage() for r in caplog.records] == [
        f"cache: {store.folder} cannot be written (No space left on device); results are not kept; "
        "use --cache-dir DIR or --no-cache"
    ]
    assert files_below(folder) == [store.path(key_of(0))]
    assert store.get(key_of(0)) is not None
    assert store.get(key_of(1)) is None
    assert store.damaged == 0


def test_a_write_that_is_cut_short_leaves_nothing(store, folder, monkeypatch):
    """As a limit on file size does: some bytes are written, then an error."""
    opened = Path.open

    def short(self, *args, **kwargs):
        file = opened(self, *args, **kwargs)
        if self.name.startswith(".tmp-"):
            write = file.write

            class Cut:
                def __getattr__(self, name):
                    return getattr(file, name)

                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    file.close()

                def write(self, data):
                    write(data[: len(data) // 2])
                    raise OSError(errno.EFBIG, "File too large")

            return Cut()
        return file

    monkeypatch.setattr(Path, "open", short)
    assert put(store, 1) is False
    monkeypatch.undo()
    assert files_below(folder) == []
    assert Store(folder).get(key_of(1)) is None


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, caplog):
    (tmp_path / "file").write_text("mine")
    store = Store(tmp_path / "file")
    with caplog.at_level(logging.WARNING, "attrsens"):
        assert put(store, 1) is False
        assert put(store, 2) is False
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().startswith(f"cache: {store.folder} cannot be written (")
    assert store.get(key_of(1)) is None
    assert (tmp_path / "file").read_text() == "mine"
    assert store.trim() == 0


def test_a_read_only_folder_still_serves_what_it_holds(store, folder, caplog, monkeypatch):
    put(store, 1)
    opened = Path.open

    def read_only(self, mode="r", *args, **kwargs):
        if set(mode) & set("wxa+"):
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", read_only)
    reader = Store(folder)
    with caplog.at_level(logging.WARNING, "attrsens"):
        assert put(reader, 2) is False
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "Read-only file system" in caplog.text
    np.testing.assert_array_equal(reader.get(key_of(1)).arrays["map"], arrays_of(1)["map"])


def test_a_file_that_cannot_be_read_is_computed_again_and_stays(store, caplog, monkeypatch):
    put(store, 1)

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("safetensors.safe_open", refuse)
    with caplog.at_level(logging.WARNING, "attrsens"):
        assert store.get(key_of(1)) is None
    assert "cannot be read (Permission denied)" in caplog.text
    monkeypatch.undo()
    assert store.get(key_of(1)) is not None
    assert store.damaged == 0


def test_a_file_system_without_hard_links_works(store, folder, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for i in (1, 2, 1):
        assert put(store, i)
    assert store.verify() == (2, 0)
    assert len(files_below(folder)) == 2


def test_every_commit_syncs_the_file_before_its_name_and_the_folder_after(store, monkeypatch):
    events = []
    fsync, link = os.fsync, os.link

    def note_sync(handle):
        events.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def note_link(*args, **kwargs):
        events.append("link")
        link(*args, **kwargs)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "link", note_link)
    put(store, 1)
    assert events[:3] == ["file", "link", "folder"]


# -- limit -----------------------------------------------------------------------------------------------------------


def test_the_oldest_go_first_until_the_rest_fits(folder):
    store = Store(folder)
    ages = {3: 100, 0: 200, 4: 300, 1: 400, 2: 500}
    for i, age in ages.items():
        put(store, i)
        os.utime(store.path(key_of(i)), (age, age))
    size = store.path(key_of(0)).stat().st_size
    assert store.trim() == 0
    store.limit = 3 * size
    assert store.trim() == 2
    assert store.keys() == sorted(key_of(i) for i in (4, 1, 2))
    store.limit = 3 * size - 1
    assert store.trim() == 1
    assert store.keys() == sorted(key_of(i) for i in (1, 2))
    store.limit = 0
    assert store.trim() == 2
    assert store.size() == (0, 0)


def test_who_has_written_nothing_removes_nothing(folder):
    put(Store(folder), 1)
    reader = Store(folder, limit=0)
    assert reader.get(key_of(1)) is not None
    assert reader.trim() == 0
    assert reader.keys() == [key_of(1)]


# -- several processes -----------------------------------------------------------------------------------------------

WRITER = """
import hashlib, sys
from pathlib import Path
import numpy as np
from attrsens.engine.store import Store
store, start, stop = Store(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
for i in range(start, stop):
    key = hashlib.sha256(str(i).encode()).hexdigest()
    arrays = {"map": np.random.default_rng(i).standard_normal((3, 128, 128)).astype(np.float32)}
    if not store.put(key, arrays, {"i": i}):
        sys.exit("not written")
    print(i, flush=True)
"""


def writer(folder: Path, start: int, stop: int) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, str(folder), str(start), str(stop)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    child.wait()
    return child.pid


def test_two_processes_write_the_same_keys(folder):
    children = [writer(folder, 0, 60) for _ in range(2)]
    for child in children:
        out, err = child.communicate(timeout=60)
        assert (child.returncode, err) == (0, b"")
        assert out.split() == [b"%d" % i for i in range(60)]
    store = Store(folder)
    assert store.verify() == (60, 0)
    assert len(files_below(folder)) == 60
    np.testing.assert_array_equal(store.get(key_of(7)).arrays["map"], arrays_of(7, 128)["map"])


@pytest.mark.parametrize("host", ["machine", "a-host-with-dashes.example"])
def test_temporary_files_of_dead_processes_go_and_those_of_living_ones_stay(host, store, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    put(store, 1)
    home = store.path(key_of(1)).parent
    dead = home / f".tmp-{host}-{dead_pid()}-{'0' * 32}"
    living = home / f".tmp-{host}-{os.getpid()}-{'1' * 32}"
    elsewhere = home / f".tmp-other-{dead_pid()}-{'2' * 32}"
    for path in (dead, living, elsewhere):
        path.write_bytes(b"half")
    assert store.size()[0] == 1
    assert store.verify() == (1, 0)
    assert [path.exists() for path in (dead, living, elsewhere)] == [False, True, True]
    dead.write_bytes(b"half")
    store.trim()
    assert not dead.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from attrsens.engine.store import Store
where, when, folder, calls = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), 0
real = getattr(os, where)
def die(*args, **kwargs):
    global calls
    calls += 1
    if calls == when:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
setattr(os, where, die)
Store(folder).put("00" * 32, {"map": np.ones(1000, np.float32)}, {"i": 0})
print("acknowledged")
"""


@pytest.mark.parametrize(
    ("where", "when", "kept"),
    [("fsync", 1, False), ("link", 1, False), ("fsync", 2, True), ("unlink", 1, True)],
    ids=["before the sync", "before the link", "before the folder's sync", "before the end"],
)
def test_killed_at_a_step_of_the_commit(where, when, kept, folder):
    command = [sys.executable, "-c", KILLED, where, str(when), str(folder)]
    child = subprocess.run(command, capture_output=True, timeout=60)
    assert (child.returncode, child.stdout) == (-signal.SIGKILL, b"")
    strays = [p for p in files_below(folder) if p.name.startswith(".tmp-")]
    assert len(strays) == 1
    store = Store(folder)
    entry = store.get("00" * 32)
    assert (entry is not None) is kept
    assert store.damaged == 0
    assert store.put("00" * 32, {"map": np.ones(1000, np.float32)}, {"i": 0})
    assert store.verify() == (1, 0)
    assert files_below(folder) == [store.path("00" * 32)]


def test_kill_at_random_moments_loses_nothing_that_was_acknowledged(folder):
    rounds, rng = 13, np.random.default_rng(2)
    acknowledged: set[int] = set()
    kills = 0
    start = 0
    for _ in range(rounds):
        children = [writer(folder, start, start + 10_000) for _ in range(2)]
        firsts = [child.stdout.readline() for child in children]
        time.sleep(float(rng.uniform(0.01, 0.25)))
        for child, first in zip(children, firsts, strict=True):
            child.send_signal(signal.SIGKILL)
            rest, errors = child.communicate(timeout=60)
            assert (child.returncode, errors) == (-signal.SIGKILL, b"")
            kills += 1
            lines = (first + rest).splitlines(keepends=True)
            acknowledged |= {int(line) for line in lines if line.endswith(b"\n")}
        start = max(acknowledged) + 1
    assert kills == 26
    assert len(acknowledged) > kills
    store = Store(folder)
    for i in acknowledged:
        entry = store.get(key_of(i))
        assert entry is not None, f"cell {i} is lost"
        assert entry.data == {"i": i}
        np.testing.assert_array_equal(entry.arrays["map"], arrays_of(i, 128)["map"])
    others = [p for p in files_below(folder) if p.suffix != ".safetensors"]
    assert all(p.name.startswith(".tmp-") for p in others)
    sound, damaged = store.verify()
    assert (sound >= len(acknowledged), damaged, store.damaged) == (True, 0, 0)
    assert len(files_below(folder)) == sound


# -- keys ------------------------------------------------------------------------------------------------------------

PARAMETERS = {
    "n": 50,
    "spread": 0.15,
    "seed": 0,
    "output": "logit",
    "space": "pixel",
    "sign": "signed",
    "reduce": "mean",
}


def cell_with(**changes) -> Cell:
    call = Call("method", "sg", 1, {**PARAMETERS, **changes})
    return Cell(model="lite0@0123456789ab", image="ab" * 32, target=281, calls=(call,), torch="2.14")


def test_the_key_is_the_hash_of_this_text():
    text = (
        '{"calls":[{"kind":"method","name":"sg","parameters":{"n":50,"output":"logit","reduce":"mean","seed":0,'
        '"sign":"signed","space":"pixel","spread":0.15},"version":1}],"device":"cpu","fold":true,"image":"'
        + "ab" * 32
        + '","model":"lite0@0123456789ab","noise":0.0,"precision":"fp32","target":281,"torch":"2.14"}'
    )
    assert cell_with().key == hashlib.sha256(text.encode()).hexdigest()
    assert cell_with().key == "caba034f11e71cfbe5cf29acedabf1dc001dcaad73d593db2940945f0c6cace5"
    prediction = Cell(model="lite0@0123456789ab", image="ab" * 32, torch="2.14")
    assert prediction.key == "00e9383034081599d7a422db2c98f62caa62c42d0998c4174588af697fb5f5f2"


def test_the_key_does_not_change_when_it_is_asked_for_twice():
    cell = cell_with()
    assert cell.key == cell.key == cell_with().key
    assert cell.raw().key == cell.raw().raw().key


def test_the_order_of_parameters_does_not_matter():
    reverse = Call("method", "sg", 1, dict(reversed(PARAMETERS.items())))
    assert list(reverse.parameters) != list(PARAMETERS)
    cell = Cell(model="lite0@0123456789ab", image="ab" * 32, target=281, calls=(reverse,), torch="2.14")
    assert cell.key == cell_with().key


def test_how_a_value_is_written_does_not_matter():
    spellings = ["sg:n=5,spread=0.2", "sg:spread=.20, n=5", "sg: n = 05 ,spread=2e-1", "sg:n=5,spread=0.2,seed=0"]
    assert len({cell_with(**parse_call(text).parameters).key for text in spellings}) == 1
    flags = parse_call("sg", {"n": 5, "spread": "0.2", "patch_size": 9})
    assert cell_with(**flags.parameters).key == cell_with(**parse_call(spellings[0]).parameters).key


@pytest.mark.parametrize(
    "change",
    [
        {"model": "lite0@ba9876543210"},
        {"image": "cd" * 32},
        {"target": 282},
        {"target": None},
        {"noise": 0.1},
        {"precision": "bf16"},
        {"fold": False},
        {"device": "cuda"},
        {"torch": "2.15"},
        {"calls": ()},
        {"calls": (Call("method", "sg", 2, PARAMETERS),)},
        {"calls": (Call("method", "sg", 1, PARAMETERS), Call("method", "grad", 1, {}))},
        {"calls": (Call("score", "sg", 1, PARAMETERS),)},
    ],
    ids=str,
)
def test_everything_that_could_change_a_result_changes_its_key(change):
    assert replace(cell_with(), **change).key != cell_with().key


@pytest.mark.parametrize(
    "change", [{"n": 51}, {"spread": 0.16}, {"seed": 1}, {"output": "prob"}, {"space": "normalized"}]
)
def test_every_parameter_counts(change):
    assert cell_with(**change).key != cell_with().key
    assert cell_with(**change).raw().key != cell_with().raw().key


def test_sign_and_reduction_share_what_is_stored():
    cells = [cell_with(sign=s, reduce=r) for s in ("signed", "abs") for r in ("mean", "sum", "max", "none")]
    assert len({cell.key for cell in cells}) == len(cells)
    assert {cell.raw().key for cell in cells} == {cell_with(reduce="none").key}


def test_the_sign_of_every_sample_is_another_computation():
    assert cell_with(sign="abs_sample").raw().key != cell_with().raw().key


def test_a_file_counts_by_its_content_and_not_by_its_name(tmp_path):
    for name, content in {"a.png": b"one", "b.png": b"one", "c.png": b"two"}.items():
        (tmp_path / name).write_bytes(content)

    def key(name: str) -> str:
        path = tmp_path / name if name else ""
        call = parse_call(f"ig:baseline=image,baseline_image={path}" if name else "ig:baseline=image")
        return Cell(model="m", image="i", target=0, calls=(call,)).key

    assert key("a.png") == key("b.png")
    assert len({key("a.png"), key("c.png"), key("")}) == 3
    before = key("a.png")
    (tmp_path / "a.png").write_bytes(b"three")
    assert key("a.png") != before

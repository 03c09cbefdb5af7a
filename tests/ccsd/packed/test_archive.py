"""The file of a packed model: the same model again, any changed byte noticed, nothing foreign in it accepted."""

import hashlib
import json
import random
import re
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ccsd.errors import UsageError
from ccsd.inference.ensemble import load_ensemble, read_members
from ccsd.model import load_model
from ccsd.model.weights import file_hash, load_weights, save_weights
from ccsd.packed import archive, frame
from ccsd.packed.find import saved_models
from ccsd.packed.pack import pack
from ccsd.records import RunRecord
from ccsd.saved import Weights
from ccsd.study import WEIGHTS
from support.runs import config_of, write_run


def test_a_packed_ensemble_is_the_models_in_order(seeds: list[Path], both: Path) -> None:
    packed, runs = load_ensemble(read_members(both)), load_ensemble(read_members(seeds))

    assert packed.identities == runs.identities
    assert (packed.name, packed.model_hash) == (runs.name, runs.model_hash)
    for one, other in zip(packed.models, runs.models, strict=True):
        assert one.config == other.config
        assert all(torch.equal(value, other.net.state_dict()[name]) for name, value in one.net.state_dict().items())


def test_equal_runs_give_equal_bytes_wherever_they_lie(seeds: list[Path], both: Path, tmp_path: Path) -> None:
    moved = [Path(shutil.copytree(run, tmp_path / "elsewhere" / run.name)) for run in seeds]
    again = pack(moved, tmp_path / "again.ccsd")
    assert again.path.read_bytes() == both.read_bytes()
    assert pack(seeds[::-1], tmp_path / "turned.ccsd").sha256 != again.sha256
    repacked = pack([both], tmp_path / "repacked.ccsd")  # a packed file is taken where a run is
    assert repacked.sha256 == again.sha256


def test_any_zip_program_reads_it_and_weights_are_not_compressed(single: Path, seeds: list[Path]) -> None:
    with zipfile.ZipFile(single) as file:
        assert file.testzip() is None
        assert file.read("models/1/model.safetensors") == (seeds[0] / "model.safetensors").read_bytes()
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}
    (model,) = saved_models(single)
    assert model.weights.start % 64 == 0


def test_every_kind_of_number_is_read_as_the_library_does(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    kinds = (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.uint8,
        torch.bool,
    )
    tensors = {str(kind): torch.tensor([[0, 1, 1], [1, 0, 1]]).to(kind) for kind in kinds}
    tensors |= {"scalar": torch.tensor(3.0), "empty": torch.zeros(0, 4)}
    save_file(tensors, tmp_path / "weights")
    content = (tmp_path / "weights").read_bytes()
    (tmp_path / "larger").write_bytes(bytes(128) + content + b"more")
    found, _ = load_weights(Weights(tmp_path / "larger", 128, len(content)))

    assert found.keys() == tensors.keys()
    for name, value in found.items():
        assert value.dtype == tensors[name].dtype
        assert torch.equal(value, tensors[name])


@pytest.mark.parametrize(
    "header",
    [
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [4, 20]}}',  # beyond its end, into what follows
        b'{"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, -16]}}',
        b'{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F32", "shape": [0, 1000000000000000000000], "data_offsets": [0, 0]}}',
        b'{"a": {"dtype": "PICKLE", "shape": [4], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], "file": "x"}}',
        b'{"__metadata__": 3}',
        b"[" * 100_000,
    ],
    ids=range(8),
)
def test_weights_cannot_lead_out_of_their_place(header: bytes, tmp_path: Path) -> None:
    content = len(header).to_bytes(8, "little") + header + bytes(16)
    (tmp_path / "file").write_bytes(bytes(64) + content + b"what follows")
    with pytest.raises(UsageError, match="file: the weights in it are not complete safetensors"):
        load_weights(Weights(tmp_path / "file", 64, len(content)))


def test_a_network_that_no_machine_has_is_rejected(tmp_path: Path) -> None:
    write_run(tmp_path / "run", config_of())
    text = (tmp_path / "run" / "run.json").read_text()
    (tmp_path / "run" / "run.json").write_text(text.replace('"width": 4', '"width": 4000000000'))
    with pytest.raises(UsageError, match="its network cannot be built"):
        load_model(tmp_path / "run")


def test_every_changed_byte_is_noticed(single: Path, tmp_path: Path) -> None:
    content, path = single.read_bytes(), tmp_path / "changed.ccsd"
    draw = random.Random(0)
    ends = [*range(140), *range(len(content) - 1100, len(content), 7)]  # the first header, the table, the seal
    for place in [*ends, *(draw.randrange(len(content)) for _ in range(60))]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :])
        with pytest.raises(UsageError, match=r"changed\.ccsd"):
            archive.read(path).check()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UsageError, match=r"changed\.ccsd: not a packed model, or truncated"):
            archive.read(path)
    path.write_bytes(content)
    archive.read(path).check()


def test_damaged_weights_are_rejected_before_they_are_used(single: Path, tmp_path: Path) -> None:
    content = bytearray(single.read_bytes())
    (model,) = saved_models(single)
    content[model.weights.start + 20_000] ^= 1
    (tmp_path / "bad.ccsd").write_bytes(content)
    (bad,) = saved_models(tmp_path / "bad.ccsd")
    with pytest.raises(UsageError, match=r"bad\.ccsd: damaged: the weights have changed since they were packed"):
        load_model(bad)


def forged(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], compressed: bool = False) -> Path:
    """Write a file as an attacker would: any members, and the seal of a packed model."""
    how = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with path.open("w+b") as file:
        with zipfile.ZipFile(file, "w", how) as target:
            for name, content in members:
                info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
                info.external_attr = info.external_attr or 0o100644 << 16
                target.writestr(info, content, how)
            target.comment = bytes(frame.SEALED)
        size = file.tell()
        spans = {} if compressed else frame.find_spans(zipfile.ZipFile(file), file, size)
        seal = frame.SEAL + frame.frame_hash(file, spans, size).encode()
        file.seek(size - frame.SEALED)
        file.write(seal)
    return path


FOREIGN = [
    "../evil", "/etc/passwd", "models/../../evil", "models\\1\\run.json", "C:\\evil", "models/1/../run.json", "a.py",
    "models/1/weights.pkl", "models/0/run.json", "Card.md", "card.md/", "models/1/run.json\n", "models/\u0661/run.json",
    "",
]  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_a_member_that_a_packed_model_does_not_have_is_rejected_by_name(name: str, tmp_path: Path) -> None:
    path = forged(tmp_path / "x.ccsd", ("card.md", b""), (name, b"x"))
    with pytest.raises(
        UsageError, match="which is not allowed in a packed model; not written by `ccsd pack`, do not use it"
    ) as caught:
        archive.read(path)
    assert repr(name) in str(caught.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_could_hide_something_is_rejected(tmp_path: Path) -> None:
    def rejected(words: str, path: Path) -> None:
        with pytest.raises(UsageError, match=words):
            archive.read(path)

    rejected("has 'card.md' twice", forged(tmp_path / "twice.ccsd", ("card.md", b"1"), ("card.md", b"2")))
    rejected("card.md is compressed", forged(tmp_path / "bomb.ccsd", ("card.md", bytes(1 << 20)), compressed=True))
    link = zipfile.ZipInfo("card.md")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    rejected("card.md is compressed, encrypted or a link", forged(tmp_path / "link.ccsd", (link, b"/etc/passwd")))
    large = forged(tmp_path / "large.ccsd", ("card.md", bytes(frame.MOST_TEXT + 1)))
    rejected(f"card.md has {frame.MOST_TEXT + 1} bytes; at most {frame.MOST_TEXT} are read", large)
    rejected("damaged: .*model.json", forged(tmp_path / "bare.ccsd", ("card.md", b"1")))


def rewritten(single: Path, path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(single) as file:
        content = {name: file.read(name) for name in file.namelist()}
    content |= {name: value for name, value in members.items() if name in content}
    return forged(path, *content.items())


def test_another_format_says_which_and_what_to_do(single: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(single) as file:
        manifest = file.read("model.json")
    later = manifest.replace(b'"format": 1', b'"format": 2')
    path = rewritten(single, tmp_path / "later.ccsd", **{"model.json": later})
    with pytest.raises(
        UsageError, match=r"later\.ccsd: a packed model of format 2, but this version of ccsd reads format 1; update"
    ):
        archive.read(path)
    lying = manifest.replace(b'    "ours-s0"', b'"ours-s0", "ours-s1"')
    with pytest.raises(UsageError, match=r"does not match its models .*models/2/run\.json"):
        archive.read(rewritten(single, tmp_path / "lying.ccsd", **{"model.json": lying}))
    other = rewritten(single, tmp_path / "other.ccsd", **{"card.md": b"another card"})
    with pytest.raises(UsageError, match=r"card\.md has 12 bytes, not"):
        archive.read(other)


def resealed(single: Path, path: Path, changes: dict[str, Any]) -> Path:
    """Rewrite a packed model as an attacker would, with all checksums right; `record.KEY` is of run.json."""
    with zipfile.ZipFile(single) as file:
        content = {name: file.read(name) for name in file.namelist()}
    texts = {"record": json.loads(content["models/1/run.json"]), "manifest": json.loads(content["model.json"])}
    for key, value in changes.items():
        *parents, last = key.split(".")
        within: Any = texts
        for part in parents:
            within = within[part]
        within[last] = value
    content["models/1/run.json"] = json.dumps(texts["record"]).encode()
    for name, entry in texts["manifest"]["files"].items():
        entry |= {"size": len(content[name]), "sha256": hashlib.sha256(content[name]).hexdigest()}
    content["model.json"] = json.dumps(texts["manifest"]).encode()
    return forged(path, *content.items())


LIES = [
    ({"record.config.model.backbone": "timeit:timeit"}, "model.backbone=timeit:timeit names code by its module"),
    (
        {"record.config.model": {"backbone": "mine", "options": {"weights": "../x"}}},
        r"model\.options\.weights=\.\./x is a path on one machine",
    ),
    ({"record.config.task": "/etc/passwd"}, "only names its task, but a packed file must contain the whole task"),
    ({"record.experiment": "ours\x1b[2J"}, r"run\.json: has control characters in 'ours\\x1b\[2J'"),
    ({"manifest.dice": {"WT\x9b": 1.0}}, r"model\.json: has control characters in 'WT\\x9b'"),
    ({"manifest.sequences": ["flair"]}, r"model\.json and run\.json belong to different tasks"),
    ({"manifest.model_hash": "0" * 64}, r"model_hash in model\.json does not match the weights"),
    ({"record.model_hash": "0" * 64}, r"run\.json describes other weights"),
]


@pytest.mark.parametrize(("changes", "words"), LIES, ids=range(len(LIES)))
def test_what_a_forged_model_says_is_not_believed(
    changes: dict[str, Any], words: str, single: Path, tmp_path: Path
) -> None:
    """Above all it does not choose which code or file of this machine is used, nor steer a terminal."""
    assert saved_models(resealed(single, tmp_path / "same.ccsd", {}))
    with pytest.raises(UsageError, match=rf"evil\.ccsd.*{words}"):
        saved_models(resealed(single, tmp_path / "evil.ccsd", changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone": '"timeit:timeit"'}, "model.backbone=timeit:timeit names code by its module"),
        ({"experiment": r'"a\u0007"'}, "has control characters"),
    ],
)
def test_what_could_not_be_read_back_is_not_packed(changes: dict[str, str], words: str, tmp_path: Path) -> None:
    write_run(tmp_path / "run", config_of(), experiment="ours")
    text = (tmp_path / "run" / "run.json").read_text()
    for key, value in changes.items():
        text = re.sub(rf'"{key}": "\w+"', lambda _: f'"{key}": {value}', text)  # noqa: B023 - used at once
    (tmp_path / "run" / "run.json").write_text(text)
    with pytest.raises(UsageError, match=words):
        pack([tmp_path / "run"], tmp_path / "out.ccsd")
    assert not (tmp_path / "out.ccsd").exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda value: value.half(), "not the weights of the configured network: .* is torch.float16, not torch.float"),
        (lambda value: value / 0 * 0, r"is not a number \(NaN\) in places"),
    ],
    ids=["half", "nan"],
)
def test_weights_that_would_fail_or_find_nothing_are_rejected(
    changed: Callable[[torch.Tensor], torch.Tensor], words: str, tmp_path: Path
) -> None:
    net = write_run(tmp_path / "run", config_of())
    save_weights(tmp_path / "run" / WEIGHTS, {name: changed(value) for name, value in net.state_dict().items()}, {})
    record = RunRecord.read(tmp_path / "run")
    record.model_copy(update={"model_hash": file_hash(tmp_path / "run" / WEIGHTS)}).write(tmp_path / "run")
    with pytest.raises(UsageError, match=words):
        pack([tmp_path / "run"], tmp_path / "out.ccsd")

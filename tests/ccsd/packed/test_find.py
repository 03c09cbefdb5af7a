"""From what `--model` takes to a model: names, addresses with a checksum, and Hugging Face, also without a network."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ccsd import extras
from ccsd.errors import UsageError
from ccsd.packed.fetch import cache_folder
from ccsd.packed.find import saved_models

COMMIT = "1234567890abcdef1234567890abcdef12345678"


def hash_of(model: Path | str) -> str:
    (found,) = saved_models(model)
    return found.record.model_hash


@contextmanager
def served(files: dict[str, tuple[bytes, dict[str, str]]]) -> Iterator[tuple[str, list[str]]]:
    """Serve files by their paths on this machine; yields the address and what was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            content, headers = files.get(self.path.partition("?")[0], (b"", {}))
            self.send_response(200 if content else 404)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815 - the library's name

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCSD_CACHE", str(tmp_path / "cache"))


def test_a_name_is_looked_up_in_the_folders_in_their_order(
    single: Path, both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, source in (("a", single), ("b", both)):
        (tmp_path / folder).mkdir()
        shutil.copy(source, tmp_path / folder / "mine.ccsd")
    shutil.copy(both, tmp_path / "b" / "other.ccsd")
    monkeypatch.setenv("CCSD_MODELS", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")]))
    assert [len(saved_models(name)) for name in ("mine", "mine.ccsd", "other")] == [1, 1, 2]
    with pytest.raises(UsageError, match=r"third: not a finished run, .* known names: mine, other"):
        saved_models("third")
    with pytest.raises(UsageError, match=r"a/none\.ccsd: not a finished run"):
        saved_models("a/none.ccsd")
    monkeypatch.chdir(tmp_path)  # a folder here has priority over a name
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match=r"mine: not a finished run .*; give the model.s file, .*mine\.ccsd"):
        saved_models("mine")
    monkeypatch.setenv("CCSD_MODELS", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match=r"CCSD_MODELS: .*gone: no such folder"):
        saved_models("third")


def test_an_address_is_fetched_once_and_used_without_a_network(single: Path) -> None:
    digest = hashlib.sha256(single.read_bytes()).hexdigest()
    with served({"/x.ccsd": (single.read_bytes(), {})}) as (address, asked):
        model = f"{address}/x.ccsd#sha256={digest}"
        assert hash_of(model) == hash_of(single)
        assert hash_of(model) == hash_of(single)
        assert asked == ["/x.ccsd"]
        (cache_folder() / f"{digest}.ccsd").write_bytes(single.read_bytes()[:-1])  # damaged: fetched again
        assert hash_of(model) == hash_of(single)
        assert len(asked) == 2
    assert hash_of(model) == hash_of(single)


def test_what_an_address_does_not_keep_is_rejected_and_not_kept(single: Path) -> None:
    content = single.read_bytes()
    cut = (content[:-9], {"Content-Length": str(len(content))})
    with served({"/x.ccsd": (content, {}), "/cut.ccsd": cut}) as (address, _):
        for text, words in (
            (f"{address}/x.ccsd", "the checksum is missing"),
            (f"{address}/x.ccsd#sha256=12", "the checksum is missing or not a SHA-256"),
            (f"{address}/x.ccsd#sha256={'0' * 64}", "has the SHA-256 .*, not 0000.*ask whoever gave you the address"),
            (f"{address}/y.ccsd#sha256={'0' * 64}", "cannot be downloaded: Not Found"),
            (f"{address}/cut.ccsd#sha256={'0' * 64}", "cannot be downloaded: .* 9 more expected"),
            (f"http://[::1/y.ccsd#sha256={'0' * 64}", "cannot be downloaded: Invalid IPv6"),
            ("ftp://x/y.ccsd", "not a web address"),
        ):
            with pytest.raises(UsageError, match=words):
                saved_models(text)
    with pytest.raises(UsageError, match=r"cannot be downloaded: .*refused"):
        saved_models(f"{address}/x.ccsd#sha256={'0' * 64}")
    assert not list(cache_folder().glob("**/*"))


def test_an_address_of_hugging_face_must_name_a_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("hf:ours/model", "hf:model@v1", "hf:ours/model@", "hf:../model@v1 x"):
        with pytest.raises(UsageError, match="write hf:ORG/NAME@REVISION; the revision, a tag or a commit, is"):
            saved_models(text)
    monkeypatch.setattr(extras, "find_spec", lambda _name: None)
    with pytest.raises(
        UsageError, match=r"installed: huggingface_hub, which --model hf:.* needs; run `pip install '\.\[hub"
    ):
        saved_models("hf:ours/model@v1")


def hub(name: str, single: Path, *names: str) -> dict[str, tuple[bytes, dict[str, str]]]:
    """Return what Hugging Face answers for a repository with a file of each name."""
    content = single.read_bytes()
    about = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in (*names, "README.md")]}
    headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
    listed = [{"type": "file", "path": file, "oid": "0" * 40, "size": len(content)} for file in (*names, "README.md")]
    files = {f"/{name}/resolve/{COMMIT}/{file}": (content, headers) for file in names}
    kind = {"Content-Type": "application/json"}
    files[f"/api/models/{name}/revision/v1"] = (json.dumps(about).encode(), kind)
    files[f"/api/models/{name}/tree/{COMMIT}"] = (json.dumps(listed).encode(), kind)
    return files


READ = """
import sys
from ccsd.packed.find import saved_models
for model in sys.argv[1:]:
    try:
        print(saved_models(model)[0].record.model_hash)
    except ValueError as error:
        print(error)
"""


def ask(home: Path, address: str, *models: str, **variables: str) -> list[str]:
    """Read models in a process of its own, as the library reads its variables when it is imported; return hashes."""
    given = {"HF_HOME": str(home), "HF_ENDPOINT": address, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    command, environment = [sys.executable, "-c", READ, *models], {**os.environ, **given, **variables}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_repository_of_hugging_face_is_fetched_once_and_used_offline(single: Path, tmp_path: Path) -> None:
    files = hub("ours/model", single, "m.ccsd") | hub("ours/two", single, "a.ccsd", "b.ccsd")
    cut = hub("ours/cut", single, "m.ccsd")
    content, headers = cut[path := f"/ours/cut/resolve/{COMMIT}/m.ccsd"]
    cut[path] = content[:99], {**headers, "Content-Length": str(len(content))}
    with served(files | cut) as (address, asked):
        online, two, ended = ask(tmp_path, address, "hf:ours/model@v1", "hf:ours/two@v1", "hf:ours/cut@v1")
    assert ended.startswith("hf:ours/cut@v1: cannot be downloaded, and is not in the cache: ")
    assert online == hash_of(single)
    assert two.startswith(
        "hf:ours/two@v1: must have exactly one packed model (.ccsd), but has: a.ccsd, b.ccsd; download the file"
    )
    assert not [path for path in asked if "README" in path]
    again, unknown = ask(tmp_path, address, "hf:ours/model@v1", "hf:ours/other@v1", HF_HUB_OFFLINE="1")
    assert again == hash_of(single)
    assert unknown.startswith("hf:ours/other@v1: cannot be downloaded, and is not in the cache: ")

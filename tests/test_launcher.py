"""The launcher, and the installer of the real Maelstrom, each in a clone of its own."""

import ast
import hashlib
import http.server
import io
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from workbench import install

ROOT = Path(__file__).resolve().parents[1]
WORKBENCH = """\
import json, sys

def main(argv):
    print(json.dumps(["workbench", *argv]))
    return 2
"""


def script(path: Path, name: str = "", status: int = 0) -> Path:
    """A stand-in for a real Maelstrom: it prints its name and arguments, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' '{name}' \"$@\"\nexit {status}\n")
    path.chmod(0o755)
    return path


class Clone:
    """A clone of this repository whose workbench only says with which words it was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"  # all that is on the PATH
        self.bin.mkdir(parents=True)
        self.launcher = folder / "clone" / "maelstrom"
        self.home = folder / "clone" / ".maelstrom"
        self.installed = self.home / "maelstrom" / "maelstrom"
        workbench = folder / "clone" / "tests" / "workbench"
        workbench.mkdir(parents=True)
        shutil.copy(ROOT / "maelstrom", self.launcher)
        shutil.copy(ROOT / "tests" / "workbench" / "install.py", workbench)
        (workbench / "__init__.py").touch()
        (workbench / "__main__.py").write_text(WORKBENCH)

    def run(self, *args: str, path: str = "", **environment: str) -> tuple[int, list[str], str]:
        """Exit status, what was called with which words, and stderr."""
        ran = subprocess.run(
            [sys.executable, self.launcher, *args],
            cwd=self.folder,
            env={"PATH": path or str(self.bin)} | environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        out = ran.stdout
        return ran.returncode, json.loads(out) if out[:1] == "[" else out.splitlines(), ran.stderr


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_ctrl_c_before_the_workbench_has_begun_is_no_verdict_and_no_traceback(clone: Clone) -> None:
    main = clone.folder / "clone" / "tests" / "workbench" / "__main__.py"
    main.write_text("raise KeyboardInterrupt")
    status, out, said = clone.run("check", "store/latest")
    assert (status, out, said) == (255, [], "")


# The launcher


def test_the_first_real_maelstrom_runs(clone: Clone) -> None:
    """In order: $MAELSTROM, the PATH, .maelstrom/, the workbench; one line says which."""
    named = script(clone.folder / "elsewhere" / "m", "named")
    on_path = script(clone.bin / "maelstrom", "on the PATH")
    script(clone.bin / "java")
    script(clone.installed, "installed")

    def runs(**environment: str) -> tuple[str, str]:
        _, called, said = clone.run("test", **environment)
        assert called[1:] == ["test"]
        assert said.startswith("maelstrom: ") and said.count("\n") == 1
        return called[0], said

    name, said = runs(MAELSTROM=str(named))
    assert name == "named" and str(named) in said
    name, said = runs(MAELSTROM="")
    assert name == "on the PATH" and str(on_path) in said
    on_path.unlink()
    name, said = runs()
    assert name == "installed" and str(clone.installed) in said
    shutil.rmtree(clone.home)
    name, said = runs()
    assert name == "workbench"
    assert "running the workbench (tests/workbench), because no real Maelstrom is installed" in said


def test_maelstrom_is_workbench(clone: Clone) -> None:
    script(clone.bin / "maelstrom", "on the PATH")
    assert clone.run("serve", MAELSTROM="workbench")[:2] == (2, ["workbench", "serve"])


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("command", ["test", "serve"])
def test_arguments_and_exit_status_pass_unchanged(clone: Clone, command: str, real: bool) -> None:
    if real:
        script(clone.bin / "maelstrom", "real", status=2)
    words = [command, "-w", "lin-kv", "--bin", "my node.py", "", "*", "--", "--seed", "a  b", "--"]
    status, called, _ = clone.run(*words)
    assert (status, called) == (2, ["real" if real else "workbench", *words])


@pytest.mark.parametrize("status", [0, 1, 255])
def test_exit_status_of_the_real_one(clone: Clone, status: int) -> None:
    script(clone.bin / "maelstrom", "real", status)
    assert clone.run("test")[0] == status


@pytest.mark.parametrize("command", ["check"])
def test_commands_that_only_the_workbench_has(clone: Clone, command: str) -> None:
    real = script(clone.bin / "maelstrom", "real")
    called = clone.run(command, "store/latest", MAELSTROM=str(real))
    assert called == (2, ["workbench", command, "store/latest"], "")


@pytest.mark.parametrize("option", ["--seed", "--simulate", "--seed=1", "--loss"])
def test_options_that_only_the_workbench_has(clone: Clone, option: str) -> None:
    real = script(clone.bin / "maelstrom", "real")
    _, called, said = clone.run("test", option)
    assert called == ["workbench", "test", option]
    assert f"the real Maelstrom has no {option} " in said and f"MAELSTROM={real})" in said
    assert clone.run("test", option, MAELSTROM=str(real))[1] == ["real", "test", option]


def test_installed_but_no_java(clone: Clone) -> None:
    script(clone.installed, "installed")
    _, called, said = clone.run("test")
    assert called == ["workbench", "test"]
    assert "needs java" in said and said.count("\n") == 1


def test_a_launcher_on_the_path_is_not_the_real_one(clone: Clone) -> None:
    """Neither this one, nor a link to it, nor that of another clone; the search goes on."""
    links, other = clone.folder / "links", Clone(clone.folder / "other")
    links.mkdir()
    (links / "maelstrom").symlink_to(clone.launcher)
    launchers = [str(clone.launcher.parent), str(links), str(other.launcher.parent)]
    assert clone.run("test", path=":".join(launchers))[1] == ["workbench", "test"]
    script(clone.bin / "maelstrom", "real")
    assert clone.run("test", path=":".join([*launchers, str(clone.bin)]))[1] == ["real", "test"]


def test_it_runs_by_its_own_name_through_a_link(clone: Clone) -> None:
    (clone.bin / "python3").symlink_to(sys.executable)
    (clone.bin / "maelstrom").symlink_to(clone.launcher)
    ran = subprocess.run(
        [clone.bin / "maelstrom", "test"], env={"PATH": str(clone.bin)}, capture_output=True
    )
    assert (ran.returncode, json.loads(ran.stdout)) == (2, ["workbench", "test"])


def test_a_copied_launcher_has_no_workbench(clone: Clone) -> None:
    """A launcher on the PATH must not take itself for the real one, again and again."""
    clone.launcher = Path(shutil.copy(clone.launcher, clone.bin))
    status, called, said = clone.run("test")
    assert (status, called) == (255, [])
    assert f"there is no tests/workbench in {clone.bin}: link to the launcher" in said


def test_maelstrom_names_nothing_that_can_run(clone: Clone) -> None:
    script(clone.bin / "maelstrom", "real")
    plain = clone.folder / "plain file"
    plain.touch()
    for wanted in (str(plain), str(clone.folder), "missing"):
        status, called, said = clone.run("test", MAELSTROM=wanted)
        assert (status, called) == (255, [])
        assert f"$MAELSTROM is {wanted}, which is not an executable file; set it" in said
    status, called, said = clone.run("test", MAELSTROM=str(clone.launcher))
    assert (status, called) == (255, []) and "which is this launcher or another clone's" in said
    real = script(clone.folder / "broken")
    real.write_text("#!/no/such/interpreter\n")
    status, called, said = clone.run("test", MAELSTROM=str(real))
    assert (status, called) == (255, []) and f"cannot run {real}" in said


def test_usage(clone: Clone) -> None:
    status, out, said = clone.run("--help")
    assert (status, out[0], said) == (0, "usage: ./maelstrom COMMAND ARGS", "")
    assert all(len(line) <= 100 for line in out)
    for words, why in ([], "a command is missing"), (["tset"], "there is no command tset"):
        status, out, said = clone.run(*words)
        assert (status, out) == (255, [])
        assert said.startswith("usage:") and said.endswith(f"maelstrom: {why}\n")


def test_an_old_python_is_told_so() -> None:
    source = (ROOT / "maelstrom").read_text()
    ast.parse(source, feature_version=(3, 7))
    pretend = "import runpy, sys; sys.version_info = (3, 9, 0); runpy.run_path(sys.argv[1])"
    ran = subprocess.run(
        [sys.executable, "-c", pretend, ROOT / "maelstrom"], capture_output=True, text=True
    )
    assert ran.returncode == 255
    assert ran.stderr.startswith("maelstrom: this is Python 3.9") and ran.stderr.count("\n") == 1


# The installer


def release(files: dict[str, bytes], mode: int = 0o755) -> bytes:
    """An archive like Maelstrom's."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:bz2") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


SCRIPT = b'#!/bin/sh\nprintf "%s\\n" installed "$@"\n'
JAR = random.Random(0).randbytes(100_000)
GOOD = release({"maelstrom/maelstrom": SCRIPT, "maelstrom/lib/maelstrom.jar": JAR})
NEWER = release({"maelstrom/maelstrom": SCRIPT + b"# newer\n"}, mode=0o644)


class Server(http.server.ThreadingHTTPServer):
    """Serves /good and /newer whole, /cut and /stuck only half, and nothing else."""

    requests = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.stuck = threading.Event()  # half a file is sent and no more will come
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        files = {"/good": GOOD, "/newer": NEWER, "/cut": GOOD[:50_000], "/stuck": GOOD[:50_000]}
        if self.path not in files:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(NEWER if self.path == "/newer" else GOOD)))
        self.end_headers()
        self.wfile.write(files[self.path])
        if self.path == "/stuck":
            self.server.stuck.set()
            self.server.over.wait()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()


def start(clone: Clone, url: str, checksum: str, file_size: int = -1) -> "subprocess.Popen[str]":
    """The installer, able to write files of so many bytes (-1: any)."""

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, -1))
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored, if these tests run behind a `&`

    return subprocess.Popen(
        [sys.executable, clone.launcher.parent / "tests" / "workbench" / "install.py"],
        env={"PATH": "", "no_proxy": "*", "MAELSTROM_URL": url, "MAELSTROM_SHA256": checksum},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )


def make_maelstrom(
    clone: Clone, url: str, checksum: str, file_size: int = -1
) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the installer."""
    process = start(clone, url, checksum, file_size)
    out, said = process.communicate(timeout=600)
    return process.returncode, out, said


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, and every link."""
    return {
        str(path): os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_install(clone: Clone, server: Server) -> None:
    status, out, said = make_maelstrom(clone, f"{server.url}/good", sha256(GOOD))
    assert (status, said) == (0, "")
    assert f"installed {clone.installed}" in out
    assert "Maelstrom also needs java, gnuplot, dot" in out
    script(clone.bin / "java")
    assert clone.run("test", "-w", "echo")[1] == ["installed", "test", "-w", "echo"]

    # Again: nothing to do.
    status, out, _ = make_maelstrom(clone, f"{server.url}/good", sha256(GOOD))
    assert status == 0 and f"{clone.installed} is already installed" in out
    assert server.requests == 1
    # A copy that is damaged is not "already installed".
    clone.installed.unlink()
    assert make_maelstrom(clone, f"{server.url}/good", sha256(GOOD))[0] == 0
    assert clone.run("test")[1] == ["installed", "test"]
    # Another release takes its place, and whatever an installer that was killed has left.
    (clone.home / "new-killed").mkdir()
    assert make_maelstrom(clone, f"{server.url}/newer", sha256(NEWER).upper())[0] == 0
    assert clone.installed.read_bytes().endswith(b"# newer\n")
    assert {path.name for path in clone.home.iterdir()} == {"maelstrom", sha256(NEWER)}
    assert clone.run("test")[1] == ["installed", "test"]


def test_install_from_a_file(clone: Clone) -> None:
    file = clone.folder / "by hand.tar.bz2"
    file.write_bytes(GOOD)
    assert make_maelstrom(clone, file.as_uri(), sha256(GOOD))[0] == 0
    assert clone.installed.is_file()


FAULTS = {
    "wrong checksum": f"its SHA-256 is {sha256(NEWER)}",
    "cut off": f"the transfer was cut off after 50000 of {len(GOOD)} bytes",
    "not there": "HTTP Error 404: Not Found",
    "nothing listens": "Connection refused",
    "no such file": "No such file",
    "no address": "unknown url type",
    "no checksum": "$MAELSTROM_SHA256 is ../../etc, not a SHA-256",
    "disk full": "File too large",
    "no archive": "could not be opened",
    "outside": "outside",
    "something else": "the archive holds no maelstrom/maelstrom",
}


@pytest.mark.parametrize("earlier", [True, False], ids=["upgrade", "first"])
@pytest.mark.parametrize("fault", FAULTS)
def test_install_fails(clone: Clone, server: Server, fault: str, earlier: bool) -> None:
    """The error says what, from where, which checksum and what to do; nothing half-done stays."""
    if earlier:
        old = release({"maelstrom/maelstrom": SCRIPT + b"# old\n"})
        file = clone.folder / "old"
        file.write_bytes(old)
        assert make_maelstrom(clone, file.as_uri(), sha256(old))[0] == 0

    file = clone.folder / "archive"
    url, checksum, file_size = file.as_uri(), "0" * 64, -1
    archives = {
        "no archive": b"no archive",
        "outside": release({"maelstrom/maelstrom": SCRIPT, "../../../escaped": b""}),
        "something else": release({"maelstrom/README.md": b""}),
    }
    if fault in archives:
        file.write_bytes(archives[fault])
        checksum = sha256(archives[fault])
    elif fault == "wrong checksum":
        url = f"{server.url}/newer"
    elif fault == "cut off":
        url, checksum = f"{server.url}/cut", sha256(GOOD)
    elif fault == "not there":
        url = f"{server.url}/missing"
    elif fault == "no address":
        url = "maelstrom.tar.bz2"
    elif fault == "no checksum":
        checksum = "../../etc"
    elif fault == "disk full":
        url, checksum, file_size = f"{server.url}/good", sha256(GOOD), 70_000

    before = contents(clone.folder)
    with socket.socket() as bound:  # an address that is taken, and where nobody listens
        bound.bind(("127.0.0.1", 0))
        if fault == "nothing listens":
            url = "http://127.0.0.1:{1}".format(*bound.getsockname())
        status, _, said = make_maelstrom(clone, url, checksum, file_size)
    assert status == 1
    assert "could not install the real Maelstrom: " in said and FAULTS[fault] in said
    assert "Traceback" not in said
    assert all(text in said for text in (url, checksum, "MAELSTROM_URL=file:", "workbench"))
    assert contents(clone.folder) == before
    assert clone.home.exists() == earlier
    script(clone.bin / "java")
    assert clone.run("test")[1] == ["installed" if earlier else "workbench", "test"]


def test_install_is_interrupted(clone: Clone, server: Server) -> None:
    process = start(clone, f"{server.url}/stuck", sha256(GOOD))
    assert server.stuck.wait(600)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=600)
    assert (process.returncode, said) == (130, "make maelstrom: interrupted; nothing was changed\n")
    assert not clone.home.exists()


def test_a_copy_of_the_users_own_stays(clone: Clone, server: Server) -> None:
    script(clone.installed, "own")
    before = contents(clone.home)
    status, _, said = make_maelstrom(clone, f"{server.url}/good", sha256(GOOD))
    assert status == 1 and "was not made by make maelstrom" in said
    assert contents(clone.home) == before


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "maelstrom/../../escaped"])
def test_unpack_on_a_python_without_filters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    archive = tmp_path / "archive"
    archive.write_bytes(release({"maelstrom/maelstrom": SCRIPT, name: b""}))
    with pytest.raises(install.Failed, match="would leave its folder"):
        install.unpack(archive, tmp_path / "release")
    assert list(tmp_path.iterdir()) == [archive]

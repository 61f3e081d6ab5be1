"""`make maelstrom`: installs the pinned release of the real Maelstrom in .maelstrom/.

    .maelstrom/<sha256>/maelstrom/              a release, unpacked
    .maelstrom/maelstrom -> <sha256>/maelstrom  link to the installed release

The installer fetches, checks and unpacks a release under a temporary name. Then it replaces the
link in one atomic step, so the link always leads to a complete release, the old or the new.

$MAELSTROM_URL and $MAELSTROM_SHA256 override the address and the checksum of the release.
"""

import hashlib
import http.client
import os
import re
import shutil
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

URL = "https://github.com/jepsen-io/maelstrom/releases/download/v0.2.4/maelstrom.tar.bz2"
SHA256 = "301ec71d6b12af0d765edb413f5cf5aa1046b5609bd4e31376a0b549548e5799"
TIMEOUT = 30  # seconds without a byte, after which the download fails
# Exceptions that the network, the disk, the archive and the URL can raise.
BROKEN = (OSError, http.client.HTTPException, tarfile.TarError, EOFError, ValueError)

HOME = Path(__file__).resolve().parents[2] / ".maelstrom"
LINK = HOME / "maelstrom"
EXECUTABLE = LINK / "maelstrom"

FAILED = """\
make maelstrom: could not install the real Maelstrom: {error}
  from     {url}
  SHA-256  {sha256}
Nothing was changed. You can
  - download the file by hand, then: make maelstrom MAELSTROM_URL=file:///PATH/TO/maelstrom.tar.bz2
  - or use the workbench: ./maelstrom runs it if no real Maelstrom is installed
"""


class Failed(Exception):
    """The installation failed; the text tells the user why."""


def fetch(url: str, target: Path) -> None:
    """Downloads a file completely, or fails."""
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response, target.open("wb") as file:
        size, done, whole = int(response.headers["Content-Length"] or 0), 0, True
        try:
            while chunk := response.read(1 << 16):
                file.write(chunk)
                done += len(chunk)
                if sys.stderr.isatty():
                    total = f" of {size / 1e6:.1f}" if size else ""
                    print(f"\r  {done / 1e6:.1f}{total} MB ", end="", file=sys.stderr)
        except http.client.IncompleteRead:
            whole = False
        finally:
            if sys.stderr.isatty():
                print(file=sys.stderr)
    if not whole or (size and done != size):
        raise Failed(f"the transfer was cut off after {done} of {size or '?'} bytes")


def verify(file: Path, sha256: str) -> None:
    """Fails unless the file has this SHA-256."""
    digest = hashlib.sha256()
    with file.open("rb") as data:
        while chunk := data.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != sha256:
        raise Failed(f"the file is not the release: its SHA-256 is {digest.hexdigest()}")


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a release, refusing members that would land outside the folder."""
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
        else:  # before Python 3.10.12 and 3.11.4: allow plain files and folders only
            for member in tar:
                parts = Path(member.name).parts
                if "/" in parts or ".." in parts or not (member.isfile() or member.isdir()):
                    raise Failed(f"{member.name!r} in the archive would leave its folder")
            tar.extractall(folder)
    executable = folder / "maelstrom" / "maelstrom"
    if not executable.is_file():
        raise Failed("the archive holds no maelstrom/maelstrom")
    executable.chmod(0o755)


def install(url: str, sha256: str) -> None:
    """Installs this release, or fails and changes nothing."""
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise Failed(f"$MAELSTROM_SHA256 is {sha256}, not a SHA-256 (64 hexadecimal digits)")
    if LINK.exists() and not LINK.is_symlink():
        raise Failed(f"{LINK} was not made by make maelstrom; move it away first")
    HOME.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="new-", dir=HOME) as name:
            new = Path(name)
            fetch(url, new / "archive")
            verify(new / "archive", sha256)
            unpack(new / "archive", new / "release")
            (new / "link").symlink_to(f"{sha256}/maelstrom")
            shutil.rmtree(HOME / sha256, ignore_errors=True)  # a damaged copy, not in use
            (new / "release").rename(HOME / sha256)
            (new / "link").replace(LINK)
        for old in set(HOME.iterdir()) - {LINK, HOME / sha256}:
            shutil.rmtree(old, ignore_errors=True)
    finally:
        with suppress(OSError):  # not empty: a release is installed
            HOME.rmdir()


def is_installed(sha256: str) -> bool:
    return (
        LINK.is_symlink()
        and os.readlink(LINK) == f"{sha256}/maelstrom"
        and os.access(EXECUTABLE, os.X_OK)
    )


def main() -> int:
    url = os.environ.get("MAELSTROM_URL") or URL
    sha256 = (os.environ.get("MAELSTROM_SHA256") or SHA256).lower()
    if is_installed(sha256):
        print(f"make maelstrom: {EXECUTABLE} is already installed (SHA-256 {sha256})")
        return 0
    print(f"make maelstrom: fetching {url}", flush=True)
    try:
        install(url, sha256)
    except KeyboardInterrupt:
        print("make maelstrom: interrupted; nothing was changed", file=sys.stderr)
        return 130
    except (Failed, *BROKEN) as error:
        # A URLError wraps the cause; its subclass HTTPError is the cause.
        why = error.reason if type(error) is urllib.error.URLError else error
        print(FAILED.format(error=why, url=url, sha256=sha256), end="", file=sys.stderr)
        return 1
    print(f"make maelstrom: installed {EXECUTABLE} (SHA-256 {sha256})")
    missing = [name for name in ("java", "gnuplot", "dot") if not shutil.which(name)]
    if missing:
        print(
            f"make maelstrom: Maelstrom also needs {', '.join(missing)}, not found on the PATH "
            "(on Debian: apt-get install default-jre-headless gnuplot graphviz)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

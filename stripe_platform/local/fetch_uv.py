"""Fetch the `uv` executable from PyPI with nothing but Python's standard library.

Run by the Makefile before anything is installed, so it imports nothing of this project:
`python3 fetch_uv.py TARGET` writes the executable to TARGET.
"""

import hashlib
import html
import io
import platform
import re
import sys
import urllib.request
import zipfile
from pathlib import Path
from urllib.parse import urljoin

VERSION = "0.13.9"
# The simple repository API (PEP 503), which mirrors of PyPI serve too.
INDEX = "https://pypi.org/simple/uv/"
TIMEOUT_S = 120


def wheel_name() -> str:
    """The file name of uv's wheel for this machine; exits with a message where there is none."""
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in ("x86_64", "aarch64"):
        sys.exit(f"no uv to fetch for {platform.system()} {machine}: install uv, then run make again")
    libc = "manylinux" if platform.libc_ver()[0] == "glibc" else "musllinux"
    return f"{libc}*{machine}"


def fetch(target: Path) -> None:
    """Write the executable to `target` after its SHA-256 has matched the one that PyPI publishes."""
    family, machine = wheel_name().split("*")
    with urllib.request.urlopen(INDEX, timeout=TIMEOUT_S) as answer:
        page = answer.read().decode()
    links = re.findall(rf'href="([^"]*/uv-{re.escape(VERSION)}-[^"]*\.whl)#sha256=([0-9a-f]{{64}})"', page)
    url, checksum = next((url, sha) for url, sha in links if family in url and machine in url)
    with urllib.request.urlopen(urljoin(INDEX, html.unescape(url)), timeout=TIMEOUT_S) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != checksum:
        sys.exit(f"the wheel of uv {VERSION} does not match its checksum on PyPI: run make again")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        executable = archive.read(f"uv-{VERSION}.data/scripts/uv")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Renamed into place: a fetch cut short must not leave half a file that make takes for done.
    part = target.with_suffix(".part")
    part.write_bytes(executable)
    part.chmod(0o755)
    part.replace(target)


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - runs on whatever python3 the machine has
        sys.exit(f"Python 3.11 or newer is needed; python3 is {platform.python_version()}")
    fetch(Path(sys.argv[1]))

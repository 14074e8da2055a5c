"""Five kinds of English text that package archives hold, told apart by a glance and by any language model.

| source | package | what |
|---|---|---|
| gloss | Debian dict-wn | WordNet's definitions |
| docs | Debian python3.11-doc, postgresql-doc-15, python-django-doc | technical documentation |
| prose | Debian sword-comm-tdavid | C. H. Spurgeon's commentary on the Psalms, 1885 |
| code | PyPI sympy (source) | Python code |
| legal | PyPI licensedcode-data | licences and notices of licences |

Nothing of it is committed: `fetch` downloads the packages into a folder and writes one JSONL file a source.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

from lawkit.errors import LawkitError

#: Where packages and texts are kept, unless LAWKIT_TEXT_CPU names a folder.
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "lawkit" / "text_cpu"
#: Versions of the two PyPI packages; Debian's are those of the release that is asked.
PYPI = {"sympy": "1.14.0", "licensedcode-data": "32.1.0"}
DEBIAN = ("dict-wn", "python3.11-doc", "postgresql-doc-15", "python-django-doc", "sword-comm-tdavid")
#: A document shorter than this (characters) says too little of its kind.
SHORTEST = 200
#: A book's chapter is cut into documents of about this many characters.
LONGEST = 8000


class UnavailableError(LawkitError):
    """The packages cannot be fetched on this machine."""


def folder() -> Path:
    """Where packages and texts are kept."""
    named = os.environ.get("LAWKIT_TEXT_CPU")
    return Path(named) if named else CACHE


def fetch(say: Callable[[str], None] = lambda text: None) -> dict[str, Path]:
    """Fetch what is not there yet, and return one JSONL file a source.

    Parameters
    ----------
    say
        Told what is being done, one line at a time.

    Raises
    ------
    UnavailableError
        Without apt-get and dpkg-deb (Debian's own tools), pip, or a connection to their archives.
    """
    into = folder()
    files = {name: into / f"{name}.jsonl" for name in READERS}
    if all(f.is_file() for f in files.values()):
        return files
    packages = into / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    for name in DEBIAN:
        if not (packages / name).is_dir():
            say(f"fetching {name}")
            _debian(name, packages)
    for name, version in PYPI.items():
        if not list(packages.glob(f"{name.replace('-', '[-_]')}-{version}*")):
            say(f"fetching {name} {version}")
            _pypi(name, version, packages)
    for name, read in READERS.items():
        say(f"extracting {name}")
        if files[name].is_file():
            continue
        partial = files[name].with_suffix(f".{os.getpid()}.part")
        with partial.open("w", encoding="utf-8") as out:
            for text in read(packages):
                if len(text) >= SHORTEST:
                    out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        partial.replace(files[name])
    return files


# ---- packages ---------------------------------------------------------------------------------------------


def _debian(name: str, packages: Path) -> None:
    """Download a Debian package and unpack it into the folder `packages / name`."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise UnavailableError(
            f"{name} is fetched with apt-get and dpkg-deb, which only Debian and its kin have"
        )
    fresh = packages / f"{name}.{os.getpid()}.part"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    _run(["apt-get", "download", "-qq", name], fresh, f"Debian's {name}")
    (archive,) = fresh.glob("*.deb")
    _run(["dpkg-deb", "-x", str(archive), "."], fresh, archive.name)
    (fresh / "version").write_text(archive.name.split("_")[1].replace("%3a", ":") + "\n")
    archive.unlink()
    fresh.replace(packages / name)


def _pypi(name: str, version: str, packages: Path) -> None:
    """Download a package of the Python index as it was published."""
    kind = ["--no-binary", ":all:"] if name == "sympy" else []
    # Building from source would run the package's own code to learn its name; a download of a known version need not.
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--no-build-isolation", *kind]
    _run([*command, f"{name}=={version}"], packages, f"PyPI's {name}")


def _run(command: list[str], cwd: Path, what: str) -> None:
    found = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if found.returncode:
        said = (found.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UnavailableError(
            f"{what} cannot be fetched ({said}): check the connection, or run apt-get update"
        )


def versions() -> dict[str, str]:
    """Version of every package that the texts came from."""
    packages = folder() / "packages"
    return {name: (packages / name / "version").read_text().strip() for name in DEBIAN} | PYPI


# ---- texts ------------------------------------------------------------------------------------------------


def _pieces(text: str) -> Iterator[str]:
    """Cuts a long text at ends of lines, so that there are enough documents to hold some out."""
    piece: list[str] = []
    for line in text.split("\n"):
        piece.append(line)
        if sum(map(len, piece)) > LONGEST:
            yield "\n".join(piece)
            piece = []
    yield "\n".join(piece)


def _gloss(packages: Path) -> Iterator[str]:
    """Every definition once, without the lists of synonyms it is repeated for; thirty headwords a document."""
    import gzip

    with gzip.open(packages / "dict-wn/usr/share/dictd/wn.dict.dz", "rt", encoding="utf-8") as file:
        text = file.read()
    part = "(?:n|v|adj|adv)"
    seen: set[str] = set()
    entries: list[str] = []
    for entry in re.split(r"\n(?=\S)", text):
        head, _, body = entry.partition("\n")
        body = re.sub(r"\s*\[(?:syn|ant|also):[^\]]*\]", "", re.sub(r"\s+", " ", body.strip()))
        senses = re.findall(rf"(?:{part} )?\d+: .*?(?=(?: {part})? \d+: |$)", body)
        fresh = [s for s in senses if (key := s.partition(": ")[2]) not in seen and not seen.add(key)]
        if fresh:
            entries.append(f"{head.strip()}: {' '.join(fresh)}")
    for start in range(0, len(entries), 30):
        yield "\n".join(entries[start : start + 30])


class _Text(HTMLParser):
    """The text of a page's main part, one line a block."""

    BLOCKS = frozenset(
        ["p", "div", "li", "pre", "h1", "h2", "h3", "h4", "h5", "dt", "dd", "tr", "br", "table", "section"]
    )
    SKIPPED = frozenset(("head", "nav", "script", "style"))

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.skipping = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.skipping += tag in self.SKIPPED
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.skipping -= tag in self.SKIPPED and self.skipping > 0
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.skipping:
            self.parts.append(data)

    def text(self) -> str:
        """All of it, with blank lines thinned out."""
        return re.sub(r"\s*\n\s*\n\s*", "\n\n", "".join(self.parts).replace("¶", "")).strip()


def _docs(packages: Path) -> Iterator[str]:
    import gzip

    for name in ("python3.11-doc", "postgresql-doc-15", "python-django-doc"):
        # Indices and changelogs are lists, and _sources the same pages a second time.
        for path in sorted((packages / name).rglob("*.html")):
            if path.is_symlink() or re.search(r"genindex|py-modindex|changelog|search", path.name):
                continue
            page = _Text()
            page.feed(path.read_text(encoding="utf-8", errors="replace"))
            yield page.text()
        if name == "python-django-doc":
            for path in sorted((packages / name).rglob("*.txt.gz")):
                yield gzip.decompress(path.read_bytes()).decode("utf-8", "replace")


def _prose(packages: Path) -> Iterator[str]:
    """A few pages a document. A SWORD module is an index of (offset, packed size, size) and zlib blocks."""
    base = packages / "sword-comm-tdavid/usr/share/sword/modules/comments/zcom/tdavid"
    blocks = (base / "ot.czz").read_bytes()
    for offset, packed, _ in struct.iter_unpack("<III", (base / "ot.czs").read_bytes()):
        marked = zlib.decompress(blocks[offset : offset + packed]).decode("utf-8", "replace")
        lines = re.sub(r"<(?:div|title|lb)[^>]*>", "\n", marked.replace("\0", "\n"))
        plain = html.unescape(re.sub(r"<[^>]+>", "", lines))
        yield from _pieces(re.sub(r"\s*\n\s*", "\n", plain).strip())


def _code(packages: Path) -> Iterator[str]:
    with tarfile.open(next(packages.glob("sympy-*.tar.gz"))) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".py") and (file := archive.extractfile(member)):
                yield file.read().decode("utf-8", "replace")


def _legal(packages: Path) -> Iterator[str]:
    with zipfile.ZipFile(next(packages.glob("licensedcode_data-*.whl"))) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith((".LICENSE", ".RULE")):
                text = archive.read(name).decode("utf-8", "replace")
                # A header of fields between two lines of dashes comes first.
                yield text.split("\n---\n", 1)[-1].strip() if text.startswith("---") else text.strip()


READERS: dict[str, Callable[[Path], Iterator[str]]] = {
    "gloss": _gloss,
    "docs": _docs,
    "prose": _prose,
    "code": _code,
    "legal": _legal,
}

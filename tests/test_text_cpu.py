"""The texts of the study text_cpu, read out of made-up packages; fetching them needs Debian's archive."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from lawkit.studies.text_cpu import sources


def test_definitions_come_once_and_without_their_synonyms(tmp_path: Path) -> None:
    file = tmp_path / "dict-wn/usr/share/dictd/wn.dict.dz"
    file.parent.mkdir(parents=True)
    text = (
        "\nfrob\n    n 1: a made-up\n         thing [syn: {frob},\n         {frobnitz}]\n    v 1: to adjust\n"
        "frobnitz\n    n 1: a made-up\n         thing [syn: {frob}]\nwug\n    n 1: a bird\n"
    )
    file.write_bytes(gzip.compress(text.encode()))
    (document,) = sources.READERS["gloss"](tmp_path)
    assert document.splitlines() == ["frob: n 1: a made-up thing v 1: to adjust", "wug: n 1: a bird"]


def test_pages_lose_their_markup_and_navigation(tmp_path: Path) -> None:
    file = tmp_path / "postgresql-doc-15/a.html"
    file.parent.mkdir(parents=True)
    file.write_text(
        "<html><head><title>t</title></head><body><nav>menu</nav><h1>One¶</h1><p>Two &amp; <b>three</b></body>"
    )
    (file.parent / "genindex.html").write_text("<p>index")
    assert list(sources.READERS["docs"](tmp_path)) == ["One\n\nTwo & three"]


def test_chapters_are_cut_at_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LONGEST", 18)
    base = tmp_path / "sword-comm-tdavid/usr/share/sword/modules/comments/zcom/tdavid"
    base.mkdir(parents=True)
    blocks = [
        zlib.compress(t.encode())
        for t in ("<title>One</title><div/>a long first line<div/>short", "Two &amp; more")
    ]
    (base / "ot.czz").write_bytes(b"".join(blocks))
    sizes = [len(b) for b in blocks]
    (base / "ot.czs").write_bytes(struct.pack("<6I", 0, sizes[0], 0, sizes[0], sizes[1], 0))
    assert list(sources.READERS["prose"](tmp_path)) == ["One\na long first line", "short", "Two & more"]


def test_archives_give_code_and_licences(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "sympy-0.tar.gz", "w:gz") as archive:
        for name, data in (("sympy-0/a.py", b"x = 1\n"), ("sympy-0/README", b"no code")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with zipfile.ZipFile(tmp_path / "licensedcode_data-0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("data/b.RULE", "---\nname: b\n---\n\nGranted.\n")
        wheel.writestr("data/a.LICENSE", "All rights.\n")
        wheel.writestr("data/c.txt", "not this")
    assert list(sources.READERS["code"](tmp_path)) == ["x = 1\n"]
    assert list(sources.READERS["legal"](tmp_path)) == ["All rights.", "Granted."]


def test_without_debians_tools_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAWKIT_TEXT_CPU", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(sources.UnavailableError, match="dict-wn is fetched with apt-get and dpkg-deb"):
        sources.fetch()

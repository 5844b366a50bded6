"""Output files: whole or not at all."""

import os
import threading
from pathlib import Path

import pytest
from earmark.runtime.errors import EarmarkError
from earmark.runtime.files import (
    atomic_path,
    check_file_writable,
    check_folder_writable,
    read_bounded,
    read_text,
    write_bytes,
    write_text,
)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_file_is_replaced_whole_with_ordinary_permissions(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    ordinary = [tmp_path / name for name in ("before", "after")]
    before = os.umask(0o027)
    try:
        ordinary[0].touch()
        write_text(target, "old")
        write_text(target, "é")
        # To ask for the mask is to set it: other files are made as before.
        ordinary[1].touch()
    finally:
        os.umask(before)
    assert target.read_bytes() == "é".encode()
    assert len({file.stat().st_mode for file in (target, *ordinary)}) == 1
    assert names(target.parent) == ["file.txt"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system does not list them")
def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        write_text(tmp_path / "file.txt", "text")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_block_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "file.txt"
    write_text(target, "old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_names_the_target(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    with (
        pytest.raises(EarmarkError, match=r"file\.txt: cannot be written \(No space left"),
        atomic_path(target),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert not names(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_folders_and_devices_are_left_alone(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    for target in (fifo, tmp_path):
        with pytest.raises(EarmarkError, match="no regular file"):
            write_bytes(target, b"x")
    assert fifo.is_fifo()


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(file)
    write_bytes(link, b"new")
    assert link.is_symlink() and file.read_bytes() == b"new"


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EarmarkError, match="cannot be written"):
        write_bytes(tmp_path / "file" / "x", b"x")


def test_what_can_be_written_is_found_out_without_a_trace(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_text("old")
    check_file_writable(file)
    check_file_writable(tmp_path / "new" / "deep" / "file.txt")
    check_folder_writable(tmp_path)
    check_folder_writable(tmp_path / "new" / "deep")
    assert names(tmp_path) == ["file.txt"] and file.read_text() == "old"


def test_what_cannot_be_written_is_told_with_the_remedy(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.touch()
    link.symlink_to(tmp_path / "gone")
    for folder in (file, file / "mine", link):
        with pytest.raises(EarmarkError) as caught:
            check_folder_writable(folder)
        told = str(caught.value)
        assert told.startswith(f"{folder}: cannot be written (")
        assert told.endswith("): name another folder")
    with pytest.raises(EarmarkError, match=r"x: cannot be written \(.+\): name another file$"):
        check_file_writable(file / "x")
    with pytest.raises(EarmarkError, match="is no regular file"):
        check_file_writable(tmp_path)
    check_file_writable(link)  # what it points to would be written
    assert sorted(names(tmp_path)) == ["file", "link"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write it")
def test_a_folder_of_somebody_else_is_told(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o500)
    with pytest.raises(EarmarkError, match=r"\(Permission denied\): name another folder"):
        check_folder_writable(tmp_path / "theirs")
    with pytest.raises(EarmarkError, match=r"\(Permission denied\): name another file"):
        check_file_writable(tmp_path / "theirs" / "file")


def test_text_is_read_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("é" * 5, encoding="utf-8")
    assert read_text(path, 10) == "é" * 5
    for limit, reason in ((9, "larger than 9 bytes"), (3, "larger")):
        with pytest.raises(EarmarkError, match=reason):
            read_text(path, limit)
    path.write_bytes(b"\xff")
    with pytest.raises(EarmarkError, match="UTF-8"):
        read_text(path)
    with pytest.raises(EarmarkError, match="cannot be read"):
        read_text(tmp_path)


@pytest.mark.parametrize("limit", [0, 99_999, 100_000, 100_001, 1 << 30])
def test_a_pipe_is_read_in_pieces_to_its_end_or_a_byte_beyond_the_limit(limit: int) -> None:
    content = bytes(range(250)) * 400
    reading, writing = os.pipe()
    writer = threading.Thread(target=write_all, args=(writing, content))
    writer.start()
    with os.fdopen(reading, "rb") as file:
        assert read_bounded(file, limit) == content[: limit + 1]
        file.read()
    writer.join()


def write_all(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        for start in range(0, len(content), 30_000):
            file.write(content[start : start + 30_000])


def test_a_message_is_one_printable_line() -> None:
    hostile = EarmarkError("a\nb\x1b[2J\udcff" + "c" * 5000)
    assert str(hostile).startswith("a\\nb\\x1b[2J\\udcffccc")
    assert str(hostile).isprintable() and len(str(hostile)) < 1100

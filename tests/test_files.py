"""The one folder, and files that are written whole or not at all."""

import os
import shutil

import pytest

from upconv.book.files import cache_folder, write_whole


def test_the_folder_is_the_chosen_one_or_in_the_cache_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("UPCONV_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == tmp_path / ".cache" / "upconv"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == tmp_path / ".cache" / "upconv"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere" / "upconv"
    monkeypatch.setenv("UPCONV_CACHE", "~/drive")
    assert cache_folder() == tmp_path / "drive"
    monkeypatch.setenv("UPCONV_CACHE", "")
    assert cache_folder() == tmp_path / "elsewhere" / "upconv"
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "new" / "deep" / "file"
    for content in (b"first", b"second, longer", b""):
        write_whole(path, lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_breaks_off_leaves_the_file_as_it_was_and_no_other(tmp_path, error):
    path = tmp_path / "file"

    def broken(file):
        file.write(b"half")
        raise error

    for before in (None, b"whole"):
        if before:
            path.write_bytes(before)
        with pytest.raises(error):
            write_whole(path, broken)
        assert [p.read_bytes() for p in tmp_path.iterdir()] == ([before] if before else [])


def test_the_error_goes_through_if_the_folder_is_gone(tmp_path):
    path = tmp_path / "folder" / "file"

    def broken(file):
        shutil.rmtree(path.parent)
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_whole(path, broken)
    assert list(tmp_path.iterdir()) == []


def test_readers_see_the_old_content_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        [other] = set(tmp_path.iterdir()) - {path}  # on the same disk, or it could not be moved; hidden
        assert other.read_bytes() == b"new" and other.name.startswith(".file.")

    write_whole(path, write)
    assert path.read_bytes() == b"new"


def test_the_content_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    path, done, replace = tmp_path / "file", [], os.replace
    monkeypatch.setattr("os.fsync", lambda handle: done.append(("on the disk", os.fstat(handle).st_size)))
    monkeypatch.setattr("os.replace", lambda *both: done.append("named") or replace(*both))
    write_whole(path, lambda file: file.write(b"content"))
    assert done == [("on the disk", 7), "named"] and path.read_bytes() == b"content"

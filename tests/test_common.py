"""Arguments, a mode for a while, bars; the one folder, and files that are written whole or not at all."""

import itertools
import os

import numpy as np
import pytest
import torch
from torch import nn

from upconv.book.common import cache_folder, check_choice, checked_int, mode, progress_bar, write_whole


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_an_integer_is_given_back_as_an_int(value):
    assert type(checked_int("n", value, at_least=3)) is int and checked_int("n", value, at_least=3) == 3


@pytest.mark.parametrize("value", [True, np.bool_(True), 2.0, "2", None, torch.tensor(2), np.ones(2)])
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(TypeError) as caught:
        checked_int("n", value, at_least=1)
    assert str(caught.value) == f"n={value!r} must be an int of at least 1"


def test_too_small_an_integer_and_a_choice_that_there_is_not_are_refused():
    with pytest.raises(ValueError, match="n=-1 must be an int of at least 0"):
        checked_int("n", -1, at_least=0)
    check_choice("fruit", "pear", ("apple", "pear"))
    for wrong in ("fig", None, "Pear"):
        with pytest.raises(ValueError) as caught:
            check_choice("fruit", wrong, ("apple", "pear"))
        assert str(caught.value) == f"fruit={wrong!r} must be one of 'apple', 'pear'"


@pytest.mark.parametrize("training", [True, False])
def test_a_mode_is_of_every_module_and_only_for_a_while(training):
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm2d(1).eval()))
    for error in (None, KeyboardInterrupt):
        try:
            with mode(model, training=training):
                assert {module.training for module in model.modules()} == {training}
                if error:
                    raise error
        except KeyboardInterrupt:
            pass
        assert [module.training for module in model.modules()] == [True, True, True, False]


@pytest.fixture
def shown(monkeypatch, capsys):
    """Give a function that says what bars wrote since the last call; their clock goes a second at a time."""
    now = itertools.count(step=1.0)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.delenv("PYTEST_VERSION")
    monkeypatch.setattr("tqdm.std.time", lambda: next(now))
    return lambda: capsys.readouterr().err


def test_a_bar_counts_what_it_goes_through_and_then_goes(shown):
    assert list(progress_bar("abc", "letters", unit="letter")) == list("abc")
    text = shown()
    assert all(part in text for part in ("letters", "0/3", "2/3", "s/letter"))
    assert text.rpartition("\r")[2] == "" and not text.rpartition("\r")[0].rpartition("\r")[2].strip()  # wiped out
    with progress_bar(7, "steps", done=4) as bar:
        bar.update()
    text = shown()
    assert "4/7" in text and "5/7" in text and "0/7" not in text


@pytest.mark.parametrize(
    "name, value, hides",
    [("TQDM_DISABLE", "1", True), ("TQDM_DISABLE", "0", False), ("TQDM_DISABLE", "", False),
     ("PYTEST_VERSION", "9", True)],
)  # fmt: skip
def test_a_bar_is_hidden_from_outputs_that_are_compared(shown, monkeypatch, name, value, hides):
    monkeypatch.setenv(name, value)
    list(progress_bar("abc"))
    assert (shown() == "") is hides


def test_a_bar_may_be_hidden_or_come_late(shown):
    list(progress_bar("abc", shown=False))
    list(progress_bar("abc", delay=100))
    assert shown() == ""
    list(progress_bar("abc", delay=1))
    assert "2/3" in shown()


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


def test_a_file_keeps_its_permissions_and_a_new_one_is_for_all_to_read(tmp_path):
    path = tmp_path / "file"
    for before, after in ((None, 0o644), (0o600, 0o600), (0o755, 0o755)):
        if before:
            path.chmod(before)
        write_whole(path, lambda file: file.write(b"new"))
        assert path.stat().st_mode & 0o777 == after


def test_through_a_link_the_file_that_it_leads_to_is_written(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere" / "file")
    write_whole(link, lambda file: file.write(b"new"))
    assert link.is_symlink() and (tmp_path / "elsewhere" / "file").read_bytes() == b"new"


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

"""A data file is flushed while it is written."""

import os
import time

import pytest

from lakehouse.catalog import flush
from lakehouse.errors import DiskFull


def test_a_growing_file_is_flushed_before_it_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(flush, "_PORTION", 1000)
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_size))
    with flush.flushing(tmp_path / "a"), (tmp_path / "a").open("wb", buffering=0) as file:
        for size in (1000, 2000):
            file.write(bytes(1000))
            deadline = time.monotonic() + 30
            while size not in flushed and time.monotonic() < deadline:
                time.sleep(0.01)
    assert flushed == [1000, 2000]


def test_an_error_that_only_the_early_flush_saw_is_not_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(flush, "_PORTION", 1)
    seen = []

    def broken(descriptor):
        seen.append(descriptor)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(DiskFull, match="Input/output error; nothing was committed"):
        with flush.flushing(tmp_path / "a"):
            (tmp_path / "a").write_bytes(b"x")
            deadline = time.monotonic() + 30
            while not seen and time.monotonic() < deadline:
                time.sleep(0.01)


def test_what_went_wrong_inside_is_told_first(tmp_path):
    with pytest.raises(ValueError, match="inside"):
        with flush.flushing(tmp_path / "never made"):
            raise ValueError("inside")


def test_only_what_changed_is_flushed_again(tmp_path, monkeypatch):
    flushed = []
    fsync = os.fsync

    def noted(descriptor):
        flushed.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    flusher = flush.Flusher(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"x")
    flusher.flush(0)
    assert sorted(flushed[:-1]) == ["a", "b"]
    flushed.clear()
    (tmp_path / "b").write_bytes(b"xy")
    (tmp_path / "c").write_bytes(b"x")
    flusher.flush(0)
    assert sorted(flushed[:-1]) == ["b", "c"]


def test_what_failed_is_flushed_again(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"x")
    flusher = flush.Flusher(tmp_path)

    def broken(descriptor):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(DiskFull):
            flusher.flush(0)
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    flusher.flush(0)
    assert len(flushed) == 2  # the file and its folder

"""The image cache: bounded, by content, its own copies; on disk it may lose entries but never invent them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.vision.cache import ImageCache
from edgevlm_runtime.vision.store import DiskStore


def _embeddings(value: float, rows: int = 4) -> np.ndarray:
    return np.full((rows, 8), value, dtype=np.float32)  # 32 bytes per row


@given(
    st.integers(0, 600),
    st.lists(st.tuples(st.sampled_from("abcdEF"), st.integers(1, 8), st.booleans()), max_size=60),
)
@settings(deadline=None)
def test_least_recently_used_leaves_first(capacity: int, uses: list[tuple[str, int, bool]]) -> None:
    """Images and tiles (in capitals) alike, within one capacity."""
    cache = ImageCache(capacity)
    model: OrderedDict[str, int] = OrderedDict()
    seen: Counter[tuple[bool, bool]] = Counter()
    for key, rows, is_put in uses:
        tile = key.isupper()
        if is_put:
            if tile:
                count = model.get(key, rows)  # its key says what is in it: the first stays
                assert cache.put_tiles({key: _embeddings(count, count)}) is (32 * count <= capacity)
            else:
                count = rows
                cache.put(key, _embeddings(count, count))
            model.pop(key, None)
            if 32 * count <= capacity:
                model[key] = count
                while 32 * sum(model.values()) > capacity:
                    model.popitem(last=False)
        else:
            found = cache.get_tiles([key]).get(key) if tile else cache.get(key)
            assert (found is not None) == (key in model)
            if found is not None:
                np.testing.assert_array_equal(found, _embeddings(model[key], model[key]))
                model.move_to_end(key)
            seen[tile, found is not None] += 1
        counts = cache.counts()
        assert (counts.hits, counts.misses) == (seen[False, True] + seen[True, True], seen[False, False])
        assert (counts.tile_hits, counts.tile_misses) == (seen[True, True], seen[True, False])
        assert counts.bytes == 32 * sum(model.values()) <= capacity
        assert (counts.images, counts.tiles) == tuple(sum(k.isupper() is tile for k in model) for tile in (False, True))


def test_tiles_that_do_not_fit_together_are_not_kept() -> None:
    """Nor do they drive out what is there."""
    cache = ImageCache(3 * 128)
    cache.put("image", _embeddings(1.0))
    assert not cache.put_tiles({name: _embeddings(2.0) for name in "abcd"})
    assert (cache.counts().images, cache.counts().tiles) == (1, 0)
    assert cache.put_tiles({name: _embeddings(2.0) for name in "ab"})
    assert (cache.counts().images, cache.counts().tiles) == (1, 2)


def test_tiles_are_copies() -> None:
    cache, buffer = ImageCache(1 << 20), _embeddings(2.0)
    cache.put_tiles({"a": buffer})
    buffer[:] = 3
    found = cache.get_tiles("a")["a"]
    np.testing.assert_array_equal(found, _embeddings(2.0))
    assert not found.flags.writeable


def test_an_image_that_is_forgotten() -> None:
    cache = ImageCache(1 << 20)
    cache.put("a", _embeddings(1.0))
    for _ in range(2):
        cache.forget("a")
    assert cache.get("a") is None
    assert (cache.counts().images, cache.counts().bytes) == (0, 0)


def test_all_tiles_of_an_image_are_an_image_found() -> None:
    cache = ImageCache(1 << 20)
    cache.put_tiles({name: _embeddings(2.0) for name in "ab"})
    assert cache.get_tiles("aab").keys() == set("ab")
    assert cache.get_tiles("abc").keys() == set("ab")
    counts = cache.counts()
    assert (counts.hits, counts.misses, counts.tile_hits, counts.tile_misses) == (1, 0, 4, 1)


def test_reading_counts_as_use() -> None:
    cache = ImageCache(2 * 128)
    for key in "ab":
        cache.put(key, _embeddings(1.0))
    assert cache.get("a") is not None
    cache.put("c", _embeddings(1.0))
    assert [key for key in "abc" if cache.get(key) is not None] == ["a", "c"]
    assert cache.counts().evictions == 1


def test_keeps_a_copy() -> None:
    """An output buffer that the next run reuses must not change what was kept."""
    cache = ImageCache(1_000)
    buffer = _embeddings(1.0)
    kept = cache.put("a", buffer)
    buffer[...] = 9.0
    found = cache.get("a")
    assert found is not None
    np.testing.assert_array_equal(found, _embeddings(1.0))
    np.testing.assert_array_equal(kept, _embeddings(1.0))
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 5.0


def test_no_room_still_returns_a_copy() -> None:
    cache = ImageCache(0)
    buffer = _embeddings(1.0)
    kept = cache.put("a", buffer)
    buffer[...] = 9.0
    np.testing.assert_array_equal(kept, _embeddings(1.0))
    assert cache.get("a") is None


def test_clear() -> None:
    cache = ImageCache(1_000)
    cache.put("a", _embeddings(1.0))
    cache.clear()
    assert cache.get("a") is None
    assert cache.counts().bytes == 0


def test_many_threads(tmp_path: Path) -> None:
    cache = ImageCache(500, DiskStore(tmp_path, 2_000))
    wrong: list[str] = []

    def work(seed: int) -> None:
        for i in range(80):
            value = (seed * 7 + i) % 10
            found = cache.get(str(value))
            if found is None:
                found = cache.put(str(value), _embeddings(value))
            if not np.array_equal(found, _embeddings(value)):
                wrong.append(str(value))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = cache.counts()
    assert not wrong
    assert counts.hits + counts.misses == 4 * 80
    assert counts.bytes <= 500


def test_outlives_the_process(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from edgevlm_runtime.vision.cache import ImageCache\n"
        "from edgevlm_runtime.vision.store import DiskStore\n"
        "cache = ImageCache(10_000, DiskStore(sys.argv[1], 10_000))\n"
        "cache.put('a', np.full((4, 8), 3.5, np.float32))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=env)
    cache = ImageCache(10_000, DiskStore(tmp_path, 10_000))
    found = cache.get("a")
    assert found is not None
    np.testing.assert_array_equal(found, _embeddings(3.5))
    assert cache.get("b") is None
    assert (cache.counts().hits, cache.counts().misses) == (1, 1)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_damaged_entries_are_removed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = DiskStore(folder, 10_000)
    store.save("a", _embeddings(2.0))
    (file,) = _files(folder)
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans(), label="truncate"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    assert store.load("a") is None
    assert not _files(folder)
    store.save("a", _embeddings(2.0))
    assert store.load("a") is not None


def test_an_entry_under_another_name_is_not_taken(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 10_000)
    store.save("a", _embeddings(1.0))
    (file,) = _files(tmp_path)
    store.save("b", _embeddings(2.0))
    (other,) = [entry for entry in _files(tmp_path) if entry != file]
    other.write_bytes(file.read_bytes())
    assert store.load("b") is None


def test_folder_is_bounded_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 10**9)
    for i in range(5):
        store.save(str(i), _embeddings(i))
        os.utime(_files_by_time(tmp_path)[-1], ns=(i, i))
    size = _files(tmp_path)[0].stat().st_size
    assert store.load("0") is not None  # now the last used
    bounded = DiskStore(tmp_path, 3 * size)
    bounded.save("5", _embeddings(5))
    assert [key for key in "012345" if bounded.load(key) is not None] == ["0", "4", "5"]
    assert sum(file.stat().st_size for file in _files(tmp_path)) <= 3 * size


def _files_by_time(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns)


def test_one_too_large_for_the_folder_is_not_written(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 100)
    store.save("a", _embeddings(1.0, rows=100))
    assert not _files(tmp_path)


def test_interrupted_write_leaves_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DiskStore(tmp_path, 10_000)

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    store.save("a", _embeddings(1.0))  # costs the entry, not the answer
    assert not _files(tmp_path)
    assert store.load("a") is None


def test_leftovers_of_killed_processes_go(tmp_path: Path) -> None:
    old, new = tmp_path / "old.part", tmp_path / "new.part"
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    os.utime(old, (0, 0))
    DiskStore(tmp_path, 10_000).save("a", _embeddings(1.0))
    assert not old.exists()
    assert new.exists()


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EdgeVLMError, match="image cache folder cannot be made"):
        DiskStore(tmp_path / "file" / "cache", 1)


def test_a_damaged_file_that_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DiskStore(tmp_path, 1 << 20)
    store.save("key", np.ones((2, 3), dtype=np.float32))
    (file,) = tmp_path.glob("*.embeddings")
    file.write_bytes(b"damaged")

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "unlink", refuse)
    assert store.load("key") is None

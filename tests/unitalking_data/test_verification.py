"""Every kind of damage is found, and named."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unitalking_data import samples
from unitalking_data import verification
from unitalking_data.cli import main
from unitalking_data.manifest import ManifestError, read_manifest
from unitalking_data.shard import Place, pack, read_sample, unpack, write_shard
from unitalking_data.storage import Store
from unitalking_data.verification import verify


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("published") / "v1"
    samples.build(root, samples.keys(0, 40), version="v1")
    samples.build(root.parent / "v2", samples.keys(1, 40), version="v2", previous=root)
    return root


@pytest.fixture
def release(published, tmp_path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "v1"))


def problems(root: Path) -> list[str]:
    return verify(str(root)).problems


def only(root: Path) -> str:
    (problem,) = problems(root)
    return problem


def test_a_sound_release(release, capsys):
    assert not problems(release)
    assert main(["verify", str(release)]) == 0
    assert "40 clips" in capsys.readouterr().out


@pytest.mark.parametrize("place", [100, 600, 5000, -20_000])
def test_a_flipped_byte_in_a_shard(release, place):
    shard = read_manifest(Store(release)).shards[1]
    data = bytearray((release / shard.path).read_bytes())
    data[place] ^= 0x10
    (release / shard.path).write_bytes(data)
    assert shard.path in only(release)
    assert main(["verify", str(release)]) == 1


@pytest.mark.parametrize("part", ["meta", "refs", "media", "SCHEMA.md", "LICENSES.json", "DATASET_CARD.md"])
def test_a_flipped_byte_in_any_other_file(release, part):
    entry = next(entry for entry in read_manifest(Store(release)).files if entry.path.startswith(part))
    data = bytearray((release / entry.path).read_bytes())
    data[len(data) // 2] ^= 0x10
    (release / entry.path).write_bytes(data)
    assert any(entry.path in problem for problem in problems(release))


def test_a_flipped_byte_after_the_last_clip(release):
    shard = read_manifest(Store(release)).shards[0]
    data = bytearray((release / shard.path).read_bytes())
    data[-1] ^= 1
    (release / shard.path).write_bytes(data)
    assert only(release) == f"{shard.path}: its bytes have changed outside of the clips"


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_shard_cut_short(release, share):
    shard = read_manifest(Store(release)).shards[0]
    data = (release / shard.path).read_bytes()
    (release / shard.path).write_bytes(data[: int(share * len(data))])
    found = problems(release)
    assert any(
        shard.path in problem and ("cut short" in problem or "bytes, the manifest" in problem) for problem in found
    )


def test_a_missing_shard_and_a_missing_table(release):
    shard = read_manifest(Store(release)).shards[0]
    (release / shard.path).unlink()
    assert only(release) == f"{shard.path}: missing"
    (release / shard.part).unlink()
    assert f"{shard.part}: missing" in problems(release)


def test_a_missing_member(release):
    """A shard written anew without one wav, all its checksums put right: only the tables know that it is missing."""
    store = Store(release)
    manifest = read_manifest(store)
    shard = manifest.shards[0]
    table = store.read_table([manifest.splits["train"].index])
    rows = [row for row in table.to_pylist() if row["shard"] == shard.number]
    places = [Place(row["key"], row["offset"], row["size"], row["crc32"]) for row in rows]
    samples = {place.key: unpack(read_sample(store, shard.path, place).data, "") for place in places}
    del samples[rows[2]["key"]]["wav"]
    written = write_shard(store, shard.path, [pack(key, members) for key, members in samples.items()])
    now = {place.key: place for place in written.places}
    changed = [
        row | ({n: getattr(now[row["key"]], n) for n in ("offset", "size", "crc32")} if row["key"] in now else {})
        for row in table.to_pylist()
    ]
    store.write_table(manifest.splits["train"].index, pa.Table.from_pylist(changed, schema=table.schema))
    shards = [replace(s, bytes=written.bytes, sha256=written.sha256) if s is shard else s for s in manifest.shards]
    store.write_bytes("manifest.json", replace(manifest, shards=shards).dumps())
    assert f"{shard.path}: clip {rows[2]['key']} has no wav" in problems(release)


def test_the_manifest_of_another_version(published, release):
    shutil.copy(published.parent / "v2" / "manifest.json", release / "manifest.json")
    found = problems(release)
    assert "not the one that this release was finished with" in found[0] and "v2" in found[0]
    assert len(found) > 1


def test_a_manifest_of_another_schema_version(release, capsys):
    text = (release / "manifest.json").read_text()
    (release / "manifest.json").write_text(text.replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(ManifestError, match="schema version 2, this code reads version 1"):
        verify(str(release))
    assert main(["verify", str(release)]) == 2
    assert "schema version 2" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema_version": 1}', "\xff"])
def test_a_damaged_manifest(release, text):
    (release / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ManifestError):
        verify(str(release))


def test_an_unfinished_release(release, tmp_path):
    (release / "_SUCCESS").unlink()
    with pytest.raises(ManifestError, match="was not finished"):
        verify(str(release))
    with pytest.raises(ManifestError, match="not a release"):
        verify(str(tmp_path / "nowhere"))


def test_a_stray_shard_is_found_and_the_files_of_other_tools_are_not(release):
    (release / "media" / ".nv-meta").mkdir()
    (release / "media" / ".nv-meta" / "dataset.yaml").touch()
    assert not problems(release)
    shutil.copy(release / "media" / "train-000000.tar", release / "media" / "train-000900.tar")
    assert only(release) == "media/train-000900.tar: not in the manifest"


def test_a_speaker_in_two_splits(release):
    """A table changed after the fact, so that the checksum is wrong as well."""
    for part in sorted((release / "meta").iterdir()):
        table = pq.read_table(part)
        place = table.schema.get_field_index("speaker")
        pq.write_table(table.set_column(place, "speaker", pa.array(["ada"] * len(table))), part)
    assert "speaker ada is in more than one split" in problems(release)


def test_an_interrupt_reads_no_further_shard(published, monkeypatch):
    read, check = [], verification._check_shard

    def check_slowly(store, shard, *rest):
        read.append(shard.path)
        time.sleep(0.3)
        return check(store, shard, *rest)

    def interrupt(line):
        raise KeyboardInterrupt

    monkeypatch.setattr(verification, "_check_shard", check_slowly)
    with pytest.raises(KeyboardInterrupt):
        verify(str(published), workers=1, progress=interrupt)
    assert len(read) < len(read_manifest(Store(published)).shards)

"""One clip to look at is the clip that the dataset delivers, and it is written nowhere but into the folder."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unitalking_data.releases import CLIPS, write_release
from unitalking_data.clip_view import describe_clip, view_clip, write_members
from unitalking_data.dataset import ClipDataset


@pytest.mark.parametrize(("epoch", "seed"), [(0, 5), (3, 5), (0, 6)])
def test_it_is_what_the_dataset_delivers(release, epoch, seed):
    clip = ClipDataset(release, "train", seed=seed).clip(8, epoch)
    view = view_clip(str(release), number=8, seed=seed, epoch=epoch)
    assert (view.key, view.prompt, view.prompt_format, view.take) == tuple(
        clip[name] for name in ("key", "prompt", "prompt_format", "take")
    )
    assert view.members == {name: clip[name] for name in ("mp4", "wav", "ref.wav", "json")}
    assert view == view_clip(str(release), key="train_0008", seed=seed, epoch=epoch)


def test_where_it_lies(release):
    view = view_clip(str(release), number=8)
    assert (view.split, view.number, view.clips, view.shard) == ("train", 8, CLIPS, "media/train-000001.tar")
    assert (view.duration_s, view.width, view.height) == (5.0, 64, 64)
    data = (release / view.shard).read_bytes()[view.offset : view.offset + view.size]
    assert data.startswith(b"train_0008.mp4\0") and b"train_0009" not in data


def test_a_key_is_found_in_any_split(release):
    view = view_clip(str(release), key="val_0031")
    assert (view.split, view.number, view.clips) == ("val", 1, 4)
    with pytest.raises(ValueError, match=r"no clip 'val_0031' in train of "):
        view_clip(str(release), split="train", key="val_0031")


def test_a_number_without_a_split_is_of_train_or_of_the_first_split(release, tmp_path):
    assert view_clip(str(release)).key == "train_0000"
    write_release(str(tmp_path / "a"), {"alpha": [2], "beta": [2]})
    assert view_clip(str(tmp_path / "a"), number=1).key == "alpha_0001"
    write_release(str(tmp_path / "b"), {"alpha": []})
    with pytest.raises(ValueError, match="has no clips"):
        view_clip(str(tmp_path / "b"))


@pytest.mark.parametrize("number", [-1, CLIPS])
def test_a_number_that_is_not_there(release, number):
    with pytest.raises(ValueError, match=rf"split 'train' has the clips 0 … 29, and no clip {number}"):
        view_clip(str(release), number=number)


def test_latents(release):
    view = view_clip(str(release), number=8, latents="tiny")
    assert set(view.members) == {"video.npy", "ref.audio.npy"} and view.shard == "train-000001.tar"


def test_the_description(release):
    view = view_clip(str(release), number=8, epoch=1)
    lines = describe_clip(view).splitlines()
    assert lines[0] == "key      train_0008" and lines[1] == "split    train, clip 8 of 30"
    assert lines[3:5] == ["duration 5.000 s", "size     64 × 64 pixels"]
    assert lines[5] == f"prompt   {view.prompt_format}: {view.prompt}" and lines[6] == f"take     {view.take}"
    assert [line.split()[1] for line in lines[7:]] == list(view.members)
    assert lines[7].split()[2] == f"{len(view.members['mp4']):,}"
    bare = describe_clip(replace(view, prompt="", prompt_format=None, take=None))
    assert "prompt   none\ntake     none\n" in bare
    assert "prompt   no description: Audio: x" in describe_clip(replace(view, prompt="Audio: x", prompt_format=None))


def test_a_caption_cannot_steer_the_terminal(release):
    text = describe_clip(replace(view_clip(str(release)), prompt="red \x1b[31m\nkey      other"))
    assert "\x1b" not in text and "\nkey      other" not in text


def test_members_are_written_as_they_are(release, tmp_path):
    view = view_clip(str(release), number=8)
    names = write_members(view, str(tmp_path / "new" / "clip"))
    assert names == [f"train_0008.{name}" for name in view.members]
    written = {path.name: path.read_bytes() for path in (tmp_path / "new" / "clip").iterdir()}
    assert written == {f"train_0008.{name}": data for name, data in view.members.items()}


@pytest.mark.parametrize(
    "change",
    [
        {"key": "../up"},
        {"key": "/etc/x"},
        {"key": ".."},
        {"members": {"wav": b"1", "/../../up": b"2"}},
        {"members": {"wav": b"1", "json/../../../up": b"2"}},
    ],
)
def test_nothing_is_written_outside_the_folder(release, tmp_path, change):
    with pytest.raises(ValueError):
        write_members(replace(view_clip(str(release)), **change), str(tmp_path / "clip"))
    assert not list(tmp_path.rglob("*"))


def test_a_link_in_the_folder_is_replaced_and_not_followed(release, tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "clip" / "train_0000.mp4").symlink_to(tmp_path / "precious")
    write_members(view_clip(str(release)), str(tmp_path / "clip"))
    assert (tmp_path / "precious").read_text() == "mine"

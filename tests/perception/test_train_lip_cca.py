from __future__ import annotations

from perception import lip_cca
from perception.train_lip_cca import TrainingClip, main, train
from tests.perception.synthetic_talkers import talker


def test_training_takes_the_clips_own_offsets_off() -> None:
    late = {0: 3, 3: -4}
    clips = [TrainingClip(f"{k}.mp4", f"family {k % 3}", 0, *talker(k, 150, late.get(k, 0))) for k in range(6)]
    model, validation = train(clips)
    assert lip_cca.estimate(model, *talker(70)).offset == 0
    assert 0 < model.floor_in_sync <= model.floor_offset
    summary = validation.summary()
    assert summary["in sync: offset within 2 frames"] == 1
    assert summary["AUC in sync against shifted and swapped"] > 0.95
    assert summary["shifted accepted"] <= 0.02


def test_training_says_which_clip_is_missing(tmp_path, capsys) -> None:
    offsets = tmp_path / "offsets.tsv"
    offsets.write_text("file\taudio_late_frames_25fps_estimate\torigin\nnowhere.mp4\t0\ta/b/c/d\n")
    assert main(["--clips", str(tmp_path), "--offsets", str(offsets), "--out", str(tmp_path / "out.npz")]) == 2
    assert "nowhere.mp4" in capsys.readouterr().err
    assert main(["--clips", str(tmp_path), "--offsets", str(tmp_path / "none.tsv"), "--out", "x.npz"]) == 2

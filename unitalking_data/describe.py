"""Summary of a release in a few lines, and the difference between two."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from unitalking_data.layout import Previous
from unitalking_data.manifest import Manifest


@dataclass(frozen=True)
class Difference:
    """What changed from one release to another, in keys.

    Attributes:
        added, withdrawn: clips that only the later has; that only the earlier has.
        changed: clips whose files were made again; ``moved``: clips that are in another split.
        same: how many clips are in both unchanged.
        kept_shards, rewritten_shards, new_shards, dropped_shards: names.
    """

    added: list[str]
    withdrawn: list[str]
    changed: list[str]
    moved: list[str]
    same: int
    kept_shards: list[str]
    rewritten_shards: list[str]
    new_shards: list[str]
    dropped_shards: list[str]


def difference(before: Previous, after: Previous) -> Difference:
    """What changed between two releases, by their indexes and checksums."""
    columns = ["key", "split", "fingerprint"]
    old = before.index.select(columns).rename_columns(["key", "old_split", "old_fingerprint"])
    both = old.join(after.index.select(columns), "key", join_type="full outer").sort_by("key")
    new_only, old_only = pc.is_null(both["old_split"]), pc.is_null(both["split"])
    common = both.filter(pc.invert(pc.or_(new_only, old_only)))
    changed = pc.not_equal(common["old_fingerprint"], common["fingerprint"])
    moved = pc.not_equal(common["old_split"], common["split"])
    hashes = {shard.path: shard.sha256 for shard in before.manifest.shards}
    now = {shard.path: shard.sha256 for shard in after.manifest.shards}
    return Difference(
        added=_keys(both, new_only),
        withdrawn=_keys(both, old_only),
        changed=_keys(common, changed),
        moved=_keys(common, moved),
        same=len(common) - (pc.sum(pc.or_(changed, moved)).as_py() or 0),
        kept_shards=sorted(path for path in now if hashes.get(path) == now[path]),
        rewritten_shards=sorted(path for path in now if path in hashes and hashes[path] != now[path]),
        new_shards=sorted(path for path in now if path not in hashes),
        dropped_shards=sorted(path for path in hashes if path not in now),
    )


def describe(manifest: Manifest) -> str:
    """Lines with the release's splits, caption columns and rejected clips."""
    lines = [
        f"release {manifest.version}{f', built over {manifest.previous}' if manifest.previous else ''}: "
        f"{manifest.clips:,} clips, {sum(t.seconds for t in manifest.splits.values()) / 3600:.2f} h, "
        f"{manifest.bytes / 1e9:.2f} GB in {len(manifest.shards)} shards"
    ]
    for name, totals in manifest.splits.items():
        speakers = f", {totals.speakers:,} speakers" if totals.speakers else ""
        lines.append(
            f"  {name:8} {totals.clips:>9,} clips {totals.seconds / 3600:>9.2f} h {totals.shards:>6} shards, "
            f"{totals.sources:,} sources{speakers}"
        )
    lines.append(f"  columns with values: {', '.join(manifest.columns) or 'no captions, no references'}")
    rejected = ", ".join(f"{count:,} {verdict}" for verdict, count in manifest.rejected.items())
    lines.append(f"  not published: {rejected or 'nothing'}")
    return "\n".join(lines)


def describe_difference(before: Previous, after: Previous, *, most: int = 10) -> str:
    """Lines with the difference of two releases, with up to ``most`` keys of each kind."""
    found = difference(before, after)
    lines = [f"from {before.manifest.version} to {after.manifest.version}: {found.same:,} clips unchanged"]
    for name in ("added", "withdrawn", "changed", "moved"):
        keys = getattr(found, name)
        if keys:
            rest = f" … {len(keys) - most:,} more" if len(keys) > most else ""
            lines.append(f"  {len(keys):>9,} {name}: {', '.join(keys[:most])}{rest}")
    lines.append(
        f"  shards: {len(found.kept_shards)} the same, {len(found.rewritten_shards)} rewritten, "
        f"{len(found.new_shards)} new, {len(found.dropped_shards)} gone"
    )
    old, new = before.manifest.columns, after.manifest.columns
    for name in sorted(set(old) ^ set(new)):
        lines.append(f"  {name}: {'added' if name in new else 'gone'}")
    verdicts = Counter(after.manifest.rejected)
    verdicts.subtract(before.manifest.rejected)
    moved = ", ".join(f"{count:+,} {verdict}" for verdict, count in sorted(verdicts.items()) if count)
    lines += [f"  not published: {moved}"] if moved else []
    return "\n".join(lines)


def _keys(table: pa.Table, mask: pa.ChunkedArray) -> list[str]:
    return table.filter(mask)["key"].to_pylist()

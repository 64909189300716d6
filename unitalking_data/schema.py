"""The columns of a release's tables, typed and described.

Every field carries its description as Arrow metadata (``description``) and every file its table's name and schema
version (``schema``, ``schema_version``), so that a table explains itself wherever it is copied. Scores are one struct
column a stage (``lip_sync.offset_s`` in SQL).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

SCHEMA_VERSION = 1
REFERENCES = 3


def described(name: str, kind: pa.DataType, description: str, *, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


def description_of(field: pa.Field) -> str:
    """What a field says about itself; ``""`` where it says nothing."""
    return (field.metadata or {}).get(b"description", b"").decode()


def _required(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return described(name, kind, description, nullable=False)


_SEGMENTS = pa.list_(pa.struct([("start_s", pa.float32()), ("end_s", pa.float32()), ("text", pa.string())]))

PLACE_FIELDS = (
    _required("key", pa.string(), "name of the clip: of its files in the shard, and in every table"),
    _required("split", pa.string(), "train, val, test…; no source and no speaker is in two"),
    _required("shard", pa.int32(), "number of the shard and of the meta and refs parts that hold the clip"),
)

CLIP_FIELDS = (
    _required("source", pa.string(), "sha256 of the file that the clip was cut from"),
    described("source_uri", pa.string(), "where that file was: its URL, or only the name of a local file"),
    described("start_s", pa.float64(), "begin of the cut in the source, seconds from its first picture"),
    described("end_s", pa.float64(), "end of the cut in the source, seconds"),
    described("speaker", pa.string(), "who speaks, as the listing of the sources says; null where it does not"),
    _required(
        "licence", pa.string(), "licence of the source as listed, '' unknown; LICENSES.json says what it permits"
    ),
    _required("provenance", pa.string(), "JSON object with the other columns of the listing, verbatim"),
    _required("verdict", pa.string(), "decision of the selection; kept for every published clip"),
)

MEDIA_FIELDS = (
    _required("duration_s", pa.float64(), "length of the published clip in seconds: frames / fps"),
    _required("frames", pa.int32(), "pictures of the mp4"),
    _required("fps", pa.float64(), "pictures a second, constant"),
    _required("width", pa.int32(), "width of the picture in pixels"),
    _required("height", pa.int32(), "height of the picture in pixels"),
    _required("audio_rate", pa.int32(), "samples a second of the wav, 0 without sound"),
    _required("audio_channels", pa.int32(), "channels of the wav, 0 without sound"),
    _required(
        "video_cut", pa.string(), "copy: the source's own bits; encode: encoded again; generated: made by a program"
    ),
    described("video_cut_reason", pa.string(), "why it had to be encoded again"),
    _required("audio_shift_s", pa.float64(), "seconds by which the sound was moved later to be in time with the lips"),
)

ATOM_FIELDS = (
    described("video_detailed", pa.string(), "detailed caption of the picture"),
    described("video_short", pa.string(), "short caption of the picture"),
    described("audio_caption", pa.string(), "caption of the sound"),
    described("fused", pa.string(), "caption of picture and sound together"),
    described("transcript", pa.string(), "what is said, verbatim"),
    described("language", pa.string(), "language of the speech, ISO 639-1"),
    described("transcript_segments", _SEGMENTS, "the transcript in time, seconds from the clip's start"),
)

REF_FIELDS = (
    _required("key", pa.string(), "the clip"),
    _required("take", pa.int32(), "0, 1 or 2; its sound is KEY.ref<take>.wav in the clip's shard"),
    described("text", pa.string(), "what the synthesised reference says"),
    described("seed", pa.int64(), "seed of its synthesis"),
    described("duration_s", pa.float32(), "seconds"),
    described("similarity", pa.float32(), "cosine of the speaker embeddings of the reference and of the clip"),
    described("wer", pa.float32(), "word error rate of the reference's transcript against its text"),
    described("tries", pa.int32(), "syntheses that it took until the gates were passed"),
    described("model", pa.string(), "what synthesised it"),
    described("licence", pa.string(), "terms that the synthesising model puts on its output"),
)

REJECTED_FIELDS = (
    _required("key", pa.string(), "the clip that is not published"),
    _required("verdict", pa.string(), "dropped, undecided, quarantined, unlicensed, broken or withdrawn"),
    described("reasons", pa.list_(pa.string()), "why, the first reason first"),
    described("source", pa.string(), "as in meta; null for a clip that was withdrawn, of which only the key is kept"),
    described("source_uri", pa.string(), "as in meta; null for a clip that was withdrawn"),
    described("start_s", pa.float64(), "as in meta"),
    described("end_s", pa.float64(), "as in meta"),
    described("licence", pa.string(), "as in meta"),
)

INDEX_FIELDS = (
    _required("key", pa.string(), "the clip"),
    _required("shard", pa.int32(), "number in the shard's file name"),
    _required("offset", pa.int64(), "first byte of the clip's first tar header in its shard"),
    _required("size", pa.int64(), "bytes from there to the end of its last padded member"),
    _required("crc32", pa.uint32(), "CRC-32 of those bytes"),
    _required("duration_s", pa.float32(), "as in meta"),
    _required("width", pa.int32(), "as in meta"),
    _required("height", pa.int32(), "as in meta"),
    _required("fingerprint", pa.string(), "of all that its files were made from: equal fingerprints, equal bytes"),
)


def scores_field(stage: str, values: Iterable[pa.Field]) -> pa.Field:
    """The struct column of a stage: how its scoring ended, its version, then what it measured.

    Args:
        values: the measured columns with their descriptions.
    """
    common = (
        described("status", pa.string(), "value, not_applicable, failed or skipped"),
        described("detail", pa.string(), "why it is not a value"),
        described("version", pa.string(), "version of the stage and hash of its settings and models"),
    )
    return described(stage, pa.struct([*common, *values]), f"scores of the stage {stage}")


def meta_schema(scores: Sequence[pa.Field] = (), extra: Sequence[pa.Field] = ()) -> pa.Schema:
    """Columns of ``meta/``: place, clip, media, caption atoms, then scores and what a producer adds."""
    return _table("meta", (*PLACE_FIELDS, *CLIP_FIELDS, *MEDIA_FIELDS, *ATOM_FIELDS, *scores, *extra))


def _table(name: str, fields: Iterable[pa.Field]) -> pa.Schema:
    return pa.schema(fields, metadata={"schema": f"unitalking.{name}", "schema_version": str(SCHEMA_VERSION)})


REFS_SCHEMA = _table("refs", REF_FIELDS)
REJECTED_SCHEMA = _table("rejected", REJECTED_FIELDS)
INDEX_SCHEMA = _table("index", INDEX_FIELDS)


def check_version(schema: pa.Schema, name: str) -> None:
    """Raises ValueError where a table was written for another version of its schema.

    Args:
        name: of the file, for the message.
    """
    found = (schema.metadata or {}).get(b"schema_version", b"none").decode()
    if found != str(SCHEMA_VERSION):
        raise ValueError(f"{name}: schema version {found}, this code reads version {SCHEMA_VERSION}")

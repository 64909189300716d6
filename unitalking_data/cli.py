"""The command ``unitalking-data``: verify, describe and look into releases."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

import pyarrow as pa

from unitalking_data import __version__
from unitalking_data.clip_view import describe_clip, view_clip, write_members
from unitalking_data.describe import describe, describe_difference
from unitalking_data.layout import Previous
from unitalking_data.manifest import read_manifest
from unitalking_data.shard import ShardError
from unitalking_data.storage import Store
from unitalking_data.verification import verify

DONE, FAULT, MISTAKE = 0, 1, 2
INTERRUPTED, BROKEN_PIPE = 130, 141  # as a shell reports SIGINT and SIGPIPE

EXIT_CODES = """exit codes:
  0  done; for verify: the release is sound
  1  the release is damaged (get it again), or the storage failed (run it again)
  2  the command has to be changed: the message says what
"""
VERIFY = """examples:
  unitalking-data verify release/v1
  unitalking-data verify s3://bucket/release/v1 --workers 8
"""
DESCRIBE = """examples:
  unitalking-data describe release/v1
  unitalking-data describe release/v1 release/v2
"""
SAMPLE = """examples:
  unitalking-data sample release/v1
  unitalking-data sample release/v1 --split val --number 12
  unitalking-data sample release/v1 --key 0cc175b9c0f1b6a8 --epoch 3 --out clip
  unitalking-data sample s3://bucket/release/v1 --latents wan
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors have the prefix and the exit code of all others."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISTAKE, f"error: {message} (see {self.prog} --help)\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code.

    Args:
        arguments: of the command line, by default those of the process.
    """
    options = _parser().parse_args(arguments)
    try:
        code = options.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # the interpreter would flush what is left into the closed pipe when it ends, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (ShardError, OSError, pa.ArrowException) as error:
        return _error(error, FAULT)
    except (ValueError, ImportError) as error:
        return _error(error, MISTAKE)
    except Exception as error:
        if not type(error).__module__.startswith("botocore."):  # no credentials, no such host: not an OSError there
            raise
        return _error(error, FAULT)


def _error(error: Exception, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="unitalking-data",
        description="Check a release, say what it holds, look at one of its clips.",
        epilog=f"{VERIFY}{_without_heading(DESCRIBE)}{_without_heading(SAMPLE)}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"unitalking-data {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str, examples: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"{examples}\n{EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("release", metavar="RELEASE", help="folder or fsspec URL")
        command.set_defaults(run=run)
        return command

    text = "read every byte of a release and check it against its manifest and tables"
    command = add("verify", _verify, text, VERIFY)
    command.add_argument("--workers", type=int, default=2, metavar="N", help="shards read at a time (default 2)")

    text = "say what a release holds, or what changed from one to another"
    command = add("describe", _describe, text, DESCRIBE)
    command.add_argument("other", nargs="?", metavar="OTHER", help="a later release to compare with")

    text = "show one clip: where it lies, its prompt, its reference take and its members"
    command = add("sample", _sample, text, SAMPLE)
    command.add_argument("--split", metavar="S", help="default: that of the key; else train, or the first there is")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--number", type=int, default=0, metavar="N", help="number of the clip in its split (default 0)")
    which.add_argument("--key", metavar="K", help="key of the clip")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw of prompt and take (default 0)")
    command.add_argument("--epoch", type=int, default=0, metavar="N", help="of the draw of prompt and take (default 0)")
    command.add_argument("--latents", metavar="NAME", help="show the latents of this encoder in place of the media")
    command.add_argument("--out", metavar="FOLDER", help="write the members into this folder, as KEY.extension")
    return parser


def _without_heading(examples: str) -> str:
    return examples.partition("\n")[2]


def _verify(options: argparse.Namespace) -> int:
    found = verify(options.release, workers=options.workers, progress=lambda line: print(line, file=sys.stderr))
    for problem in found.problems:
        print(problem)
    state = f"{len(found.problems)} problems" if found.problems else "sound"
    print(f"release {found.version}: {found.clips:,} clips, {found.files:,} files, {found.bytes:,} bytes: {state}")
    return FAULT if found.problems else DONE


def _describe(options: argparse.Namespace) -> int:
    if options.other:
        print(describe_difference(Previous.open(options.release), Previous.open(options.other)))
    else:
        print(describe(read_manifest(Store(options.release))))
    return DONE


def _sample(options: argparse.Namespace) -> int:
    view = view_clip(
        options.release,
        split=options.split,
        number=options.number,
        key=options.key,
        seed=options.seed,
        epoch=options.epoch,
        latents=options.latents,
    )
    print(describe_clip(view))
    if options.out:
        names = write_members(view, options.out)
        print(f"wrote {len(names)} files to {options.out}")
    return DONE

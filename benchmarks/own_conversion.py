"""Runs in our environment: converts a case on request, as `ccsd convert` does."""

import sys
from pathlib import Path

from measure import Answer, peak_mib, serve, timed
from zlib_ng import gzip_ng

from preprocess.case import prepare
from preprocess.source.layouts import discover
from preprocess.store.reader import store_path
from preprocess.store.write import write_case
from preprocess.task import default_task

SOURCE, DEST = Path(sys.argv[1]), Path(sys.argv[2])
CASES = {files.case: files for files in discover(SOURCE, default_task())}


def _convert(case: str) -> None:
    prepared = prepare(CASES[case])
    write_case(DEST, prepared)


def convert(case: str) -> Answer:
    """Read, check, normalise and write one case."""
    DEST.mkdir(parents=True, exist_ok=True)
    times = timed(lambda: _convert(case))
    path = store_path(DEST, case)
    return {**times, "peak": peak_mib(), "bytes": sum(p.stat().st_size for p in path.rglob("*") if p.is_file())}


def prepare_only(case: str) -> Answer:
    """Do everything but write."""
    return timed(lambda: prepare(CASES[case]))


def inflate(case: str) -> Answer:
    """Only read and inflate the files: no conversion can be faster."""
    return timed(lambda: [gzip_ng.decompress(path.read_bytes()) for path in CASES[case].paths])


if __name__ == "__main__":
    serve({"convert": convert, "prepare": prepare_only, "inflate": inflate})

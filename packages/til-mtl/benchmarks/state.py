"""Starting `til-mtl predict` on a folder where every slide is finished: one JSON line.

The slides are empty files and the results are a line each, with the sidecars that the command itself would look for, so
that what is measured is the command without any work: finding slides, telling what is done, and both tables. The tables
must list every slide. ``--slides`` for another number than 20,000, ``--quick`` for 2,000.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from medshared.files import to_plain
from medshared.leases import sidecar_path
from til_mtl.slides.job_state import ModelOnce
from til_mtl.slides.options import SlideOptions
from til_mtl.slides.pipeline import _task, run_slides


def make(root: Path, n: int) -> SlideOptions:
    """Write slides and finished results."""
    options = SlideOptions(slides=root / "slides", out=root / "out", checkpoint=root / "network.pt")
    assert options.slides is not None
    options.slides.mkdir()
    (root / "network.pt").write_bytes(b"x")
    model = ModelOnce(options)
    for i in range(n):
        slide = options.slides / f"slide{i:06}.svs"
        slide.touch()
        task = _task(slide, options, model)
        inputs = to_plain(task.inputs())
        task.output.parent.mkdir(parents=True)
        result = json.dumps({"row": {"image-id": slide.stem, "tils-score": 12.5}, "reason": ""})
        for file in task.files:
            file.write_text(result)
            status = file.stat()
            known = {"sha256": "0" * 64, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
            sidecar_path(file).write_text(json.dumps({**known, "inputs": inputs}))
    return options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=20_000)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    n = 2_000 if arguments.quick else arguments.slides
    with tempfile.TemporaryDirectory() as name:
        options = make(Path(name), n)
        started = time.perf_counter()
        assert run_slides(options) == 0
        seconds = time.perf_counter() - started
        for table in ("til_scores.csv", "slides.csv"):
            assert len((options.out / table).read_text().splitlines()) == n + 1
    line = {"workload": "predict, all slides done", "slides": n, "seconds": round(seconds, 2)}
    print(json.dumps({**line, "ms_a_slide": round(1e3 * seconds / n, 3)}))


if __name__ == "__main__":
    main()

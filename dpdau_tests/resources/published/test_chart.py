"""The mart's chart: the same bytes for the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_DRAW = """
import sys
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from dpdau_assets.core.facts import ReleaseKey
from resources.published.chart import draw_series

first = date(2025, 1, 1)
rows = [
    SimpleNamespace(key=ReleaseKey(metric, 1 if metric == "dau" else 30, first + timedelta(days=n)),
                    estimate=100.0 + n, noisy_value=100.0 + n * n % 7, lower_95=90.0, upper_95=110.5)
    for metric in ("dau", "mau") for n in range(40)
]
draw_series(rows, Path(sys.argv[1]))
"""


def drawn(folder: Path, name: str, hash_seed: str) -> bytes:
    """What another process draws that has its fonts and its settings in this folder."""
    environment = {**os.environ, "MPLCONFIGDIR": str(folder), "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", _DRAW, name], env=environment, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return (folder / name).read_bytes()


def test_the_chart_has_the_same_bytes_in_another_process_with_other_fonts_settings_and_hashes(tmp_path: Path) -> None:
    """The second has a list of fonts in which every usual name leads to another one than in the first."""
    first = drawn(tmp_path, "first.svg", "1")
    (fonts,) = tmp_path.glob("fontlist*.json")
    listed = json.loads(fonts.read_text())
    for font in listed["ttflist"]:
        font["fname"] = (
            str(Path(font["fname"]).with_name("cmtt10.ttf")) if "mpl-data" in font["fname"] else font["fname"]
        )
        font["name"] = f"no more {font['name']}" if "mpl-data" not in font["fname"] else font["name"]
    fonts.write_text(json.dumps(listed))
    (tmp_path / "matplotlibrc").write_text("font.size: 22\nsvg.fonttype: none\nlines.linewidth: 9\n")
    assert drawn(tmp_path, "second.svg", "2") == first
    assert b"<dc:date>" not in first

"""Make the README's moving picture: the rank explorer of page 01, moved by its keys in a headless Chromium.

    .venv/bin/python tests/support/moving_picture.py

It leaves notebooks/images/rank_light.webp and rank_dark.webp. Takes about a minute.
"""

import io
import sys
import tempfile
from pathlib import Path

import browser
import nbformat
from PIL import Image

from lab_utils.classroom import course, presented
from lab_utils.classroom.contents import write_index
from lab_utils.folders import NOTEBOOKS

STEPS = {"picture": 14, "noise": 9}  # matrix -> presses of the right arrow key, from rank 0
FIRST_MS, STEP_MS, LAST_MS = 700, 240, 1900  # how long a frame is seen
STYLE = (  # every frame has one size and no rim
    "* { outline: none !important; } .site-stage { border-radius: 0; border: 0; } "
    ".lab-explorer .lab-summary { white-space: nowrap; font-size: 16px; }"
)
WIDTH, SCALE = 860, 2  # CSS pixels, and pixels in each


def write_site(folder: Path) -> Path:
    """Run page 01 as far as its explorer needs it; returns the index that shows the explorer."""
    path = folder / "01_rank_one.ipynb"
    nbformat.write(presented.page_notebook(*presented.select(["rank"])), path)
    page = course.execute(path)
    if page.failure:
        sys.exit(f"Page 01 failed: {page.failure}")
    (folder / "01_rank_one.html").write_text("", encoding="utf-8")
    return write_index([page], folder)


def frames(page) -> list[tuple[Image.Image, int]]:
    """(picture, milliseconds) for every rank of every matrix."""
    stage, found = page.locator(".site-stage"), []
    slider = page.get_by_label("rank", exact=True)
    for matrix, presses in STEPS.items():
        page.get_by_label("matrix", exact=True).select_option(matrix)
        slider.press("Home")
        for press in range(presses + 1):
            if press:
                slider.press("ArrowRight")
            page.wait_for_timeout(40)
            shot = Image.open(io.BytesIO(stage.screenshot())).convert("RGB")
            found.append((shot, FIRST_MS if press == 0 else LAST_MS if press == presses else STEP_MS))
    return found


def main() -> None:
    """Write both pictures, and say how large they are."""
    with tempfile.TemporaryDirectory() as folder, browser.chromium() as chromium:
        index = write_site(Path(folder))
        for theme in ("light", "dark"):
            page = chromium.new_page(
                color_scheme=theme, viewport={"width": WIDTH, "height": 900}, device_scale_factor=SCALE
            )
            page.goto(index.as_uri())
            page.locator(".site-stage .lab-explorer").wait_for()
            page.add_style_tag(content=STYLE)
            (first, _), *rest = seen = frames(page)
            target = NOTEBOOKS / "images" / f"rank_{theme}.webp"
            first.save(
                target, save_all=True, append_images=[picture for picture, _ in rest], loop=0,
                duration=[milliseconds for _, milliseconds in seen], lossless=True, method=3,
            )  # fmt: skip
            print(f"{target}: {len(seen)} frames, {target.stat().st_size / 1e6:.2f} MB, {first.size}")


if __name__ == "__main__":
    main()

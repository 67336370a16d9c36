"""The front page's picture is that of the trainings which it names, and its slider chooses among them."""

import numpy as np
import pytest
from PIL import Image

from tools import watching as tool
from upconv.book.watching import BLOCKS, FLAT, PHOTOGRAPH, SIDES, STEPS, flat_levels, watching


@pytest.mark.parametrize("block", ["conv_transpose_4x4", "nearest_conv_3x3"])
def test_the_pictures_are_those_of_the_training(block):
    """Those of its first steps; the last digits of a machine grow with each."""
    made = tool.tiles(tool.watch(block, until=10))
    row = list(BLOCKS).index(block)
    for name, tiles in zip((FLAT, PHOTOGRAPH), made, strict=True):
        side = SIDES[name]
        assert tiles.shape == (side, 2 * side, 3)
        picture = np.asarray(Image.open(tool.FOLDER / name))
        assert picture.shape == (side * len(BLOCKS), side * len(STEPS), 3)
        kept = picture[side * row : side * (row + 1), : 2 * side].astype(float)
        assert abs(kept - tiles).mean() < 3  # the photographs are JPEGs


def test_a_fresh_grid_grows_and_fades_and_a_pair_draws_none():
    levels = {step: flat_levels(step) for step in STEPS}
    for step in STEPS:
        assert levels[step]["nearest_conv_3x3"] == 0
    assert levels[0]["pixel_shuffle_icnr"] == 0 < levels[10]["pixel_shuffle_icnr"]
    for block in ("conv_transpose_3x3", "conv_transpose_4x4", "pixel_shuffle"):
        assert levels[10][block] > levels[0][block] > levels[1000][block] > 0


def test_the_slider_shows_another_step(browser):
    page = browser.new_page()
    page.set_content(f"<main>{watching(step=10)}</main>")
    slider, tile = page.get_by_role("slider", name="Steps of training"), page.locator(".block .flat").first
    assert page.get_by_role("img").count() == 2 * len(BLOCKS)
    seen = [tile.screenshot()]
    for key, step in (("Home", 0), ("End", 1000), ("ArrowLeft", 300)):
        slider.press(key)
        assert page.locator("output").inner_text() == str(step)
        assert slider.get_attribute("aria-valuetext") == f"{step} steps"
        seen.append(tile.screenshot())
    assert len(set(seen)) == 4
    page.close()
    with pytest.raises(ValueError, match="not in tuple"):
        watching(step=11)


def test_without_scripts_all_steps_are_there(browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_content(watching())
    assert page.locator(".all:visible").count() == 2
    context.close()

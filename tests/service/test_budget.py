"""What images may take of the memory."""

from pathlib import Path

import pytest

from service import budget
from service.settings import Settings
from tests.service.conftest import serving, settings_of
from tests.service.images.files import noise, png


@pytest.mark.parametrize(
    ("memory", "image", "held"),
    [(2**40, 128_000_000, 512_000_000), (4_800_000_000, 100_000_000, 100_000_000)],
    ids=["plenty", "little"],
)
def test_images_take_a_fourth_of_the_memory(
    memory: int, image: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "memory", lambda: memory)
    filled = budget.filled(Settings())
    assert (filled.max_image_pixels, filled.max_pending_pixels) == (image, held)


def test_what_was_asked_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "memory", lambda: 1)
    asked = Settings(max_image_pixels=7, max_pending_pixels=8)
    assert budget.filled(asked) == asked


def test_the_memory_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    budget.memory.cache_clear()
    amounts = iter((1000, 2000))
    monkeypatch.setattr(budget, "usable_memory", lambda: next(amounts))
    try:
        assert budget.memory() == budget.memory() == 1000
    finally:
        budget.memory.cache_clear()


def test_a_small_container_refuses_an_image_that_it_has_no_memory_for(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "memory", lambda: 100 * 100 * budget.BYTES_A_PIXEL * 4)
    settings = settings_of(model_dir, max_image_pixels=0, max_pending_pixels=0)
    with serving(settings) as client:
        statuses = [
            client.post("/segment", files={"image": png(noise(edge, edge))}).status_code
            for edge in (100, 101)
        ]
    assert statuses == [200, 413]

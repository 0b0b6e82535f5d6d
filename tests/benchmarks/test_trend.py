import numpy as np
import pytest

from benchmarks.trend import trend


def test_a_line_is_found_as_it_is() -> None:
    places = list(range(0, 500, 50))

    found = trend(places, [7 + 3 * place for place in places])

    assert found.slope == pytest.approx(3)
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.grows


def test_slope_and_error_are_those_of_the_textbook() -> None:
    # x̄ = 2, Sxx = 10, Sxy = 6; residuals −0.2, 0.2, 0.6, −1.0, 0.4 sum to 1.6 in squares
    found = trend([0, 1, 2, 3, 4], [1, 2, 3, 2, 4])

    assert found.slope == pytest.approx(0.6)
    assert found.error == pytest.approx((1.6 / 3 / 10) ** 0.5)


def test_noise_around_a_level_does_not_grow() -> None:
    noise = np.random.default_rng(0).normal(size=100)

    assert not trend(range(100), noise.tolist()).grows


def test_growth_that_is_larger_than_the_noise_is_seen() -> None:
    noise = np.random.default_rng(0).normal(size=100)

    assert trend(range(100), (noise + 0.1 * np.arange(100)).tolist()).grows


def test_what_shrinks_does_not_grow() -> None:
    assert not trend(range(9), range(9, 0, -1)).grows


def test_two_samples_have_no_error() -> None:
    with pytest.raises(ValueError, match="three samples"):
        trend([0, 1], [1, 2])

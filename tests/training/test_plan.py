"""The plan: what each rule makes of the data, and the reason that it gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import DatasetError
from model.geometry import Geometry
from model.intensity import IntensityRule, IntensityScale
from tests.training.small import make_plan as small_plan
from training.data.census import Census
from training.plan import (
    FEWEST_STEPS,
    LARGEST_BATCH,
    MEMORY_SHARE,
    MOST_STEPS,
    PAPER_EDGE,
    RIDGE_WEIGHT,
    Plan,
    free_memory,
    make_plan,
    parse_intensity,
    tile_bytes,
)
from training.settings import FitSettings
from training.tiles.weight_map import BORDER_SIGMA, BORDER_WEIGHT

PLENTY = 10**12


def census(**changes: Any) -> Census:
    """Count thirty images of 512 px with sparse cells, none of which touch."""
    fields: dict[str, Any] = {
        "images": 30,
        "pixels": 30 * 512**2,
        "median_edge": 512.0,
        "in_channels": 1,
        "dtypes": ("uint8",),
        "low": 0.0,
        "high": 255.0,
        "common_span": None,
        "label_kind": "instance",
        "num_classes": 2,
        "class_shares": (0.9, 0.1),
        "object_count": 900,
        "diameters": (20.0, 25.0, 30.0),
        "typical_diameters": (24.0, 26.0),
        "median_gap": 9.0,
        "concentration": 0.05,
        "touching": 0.25,
    }
    return Census(**(fields | changes))


def plan_of(
    counted: Census | None = None, free_bytes: int = PLENTY, processes: int = 1, **changes: Any
) -> Plan:
    asked = FitSettings(out=Path("run"), **({"device": "cpu"} | changes))
    return make_plan(counted or census(), asked, free_bytes, processes)


@pytest.fixture
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)


class TestReasons:
    def test_every_value_has_one(self) -> None:
        plan = plan_of()
        assert set(plan.reasons) == set(Plan.model_fields) - {"reasons"}
        assert all(plan.reasons.values())

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("tile_edge", 252),
            ("batch", 3),
            ("steps", 17),
            ("compute", "float32"),
            ("border_weight", 0.0),
            ("border_sigma", 3.5),
            ("ridges", False),
            ("object_share", 0.0),
            ("largest_zoom", 1.0),
            ("main_score", "ap50"),
            ("learning_rate", 0.5),
            ("elastic", False),
        ],
    )
    def test_a_value_that_was_asked_for_is_taken_and_says_so(self, name: str, value: Any) -> None:
        """Also where it is 0, or false."""
        plan = plan_of(**{name: value})
        assert getattr(plan, name) == value
        assert plan.reasons[name] == "asked for"

    def test_an_intensity_rule_that_was_asked_for_is_taken(self) -> None:
        plan = plan_of(intensity="range:0,4095")
        assert plan.intensity == IntensityRule(kind="range", low=0, high=4095)
        assert plan.reasons["intensity"] == "asked for"

    def test_no_other_value_is_said_to_be_asked_for(self) -> None:
        assert "asked for" not in plan_of().reasons.values()

    def test_a_plan_is_printed_with_a_line_a_value(self) -> None:
        lines = plan_of(steps=17).describe().splitlines()
        assert len(lines) == len(Plan.model_fields) - 1
        assert lines[1].split(maxsplit=2) == ["tile_edge", "572", "the paper's tile"]
        assert "percentile:0.5,99.5" in lines[4]

    def test_a_plan_in_a_file_is_the_plan(self) -> None:
        plan = plan_of(census(low=-1000.0, dtypes=("int16",)))
        assert Plan.model_validate_json(plan.model_dump_json(indent=2)) == plan


class TestCompute:
    @pytest.mark.parametrize(
        ("processor", "compute"),
        [
            ({"architecture": "x86_64", "avx2": True, "avx512_bw": False}, "float32"),
            ({"architecture": "x86_64", "avx2": True, "avx512_bw": True}, "bfloat16"),
            ({"architecture": "aarch64", "neon": True, "bf16": False}, "float32"),
            ({"architecture": "aarch64", "neon": True, "bf16": True}, "bfloat16"),
        ],
    )
    def test_a_processor_that_would_emulate_bfloat16_computes_in_float32(
        self, monkeypatch: pytest.MonkeyPatch, processor: dict[str, Any], compute: str
    ) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
        plan = plan_of()
        assert plan.compute == compute
        assert "processor" in plan.reasons["compute"]

    @pytest.mark.usefixtures("_gpu")
    @pytest.mark.parametrize(("native", "compute"), [(True, "bfloat16"), (False, "float32")])
    def test_so_does_a_gpu(
        self, monkeypatch: pytest.MonkeyPatch, native: bool, compute: str
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: native)
        plan = plan_of(device="auto")
        assert plan.compute == compute
        assert "GPU" in plan.reasons["compute"]


class TestTileEdge:
    def test_images_of_that_size_or_more_get_the_tile_of_the_paper(self) -> None:
        plan = plan_of()
        assert plan.tile_edge == PAPER_EDGE == 572
        assert plan.reasons["tile_edge"] == "the paper's tile"

    @pytest.mark.parametrize(
        ("median_edge", "expected"), [(256.0, 444), (372.0, 556), (372.1, 572)]
    )
    def test_smaller_images_get_the_smallest_tile_that_covers_them(
        self, median_edge: float, expected: int
    ) -> None:
        plan = plan_of(census(median_edge=median_edge))
        assert plan.tile_edge == expected
        assert Geometry(4).output_edge(expected) >= median_edge

    def test_the_reason_names_the_edge_of_the_image(self) -> None:
        plan = plan_of(census(median_edge=255.6))
        assert plan.reasons["tile_edge"] == "covers the typical image, 256 px"

    @settings(deadline=None)
    @given(st.integers(1, 6), st.integers(1, 4000), st.integers(0, 2**40))
    def test_it_is_always_one_that_the_network_can_have(
        self, depth: int, median_edge: int, free_bytes: int
    ) -> None:
        plan = plan_of(census(median_edge=float(median_edge)), free_bytes, depth=depth)
        assert Geometry(depth).is_valid(plan.tile_edge)

    @settings(deadline=None)
    @given(
        st.integers(10**8, 10**11),
        st.sampled_from([16, 32, 64]),
        st.sampled_from(["bfloat16", "float32"]),
    )
    def test_its_training_pass_fits_the_free_memory(
        self, free_bytes: int, channels: int, compute: str
    ) -> None:
        plan = plan_of(free_bytes=free_bytes, base_channels=channels, compute=compute)
        room = MEMORY_SHARE * free_bytes
        smallest = plan.tile_edge == Geometry(4).smallest_edge
        assert tile_bytes(channels, plan.tile_edge, plan.compute) <= room or smallest
        larger = tile_bytes(channels, plan.tile_edge + 16, plan.compute)
        assert plan.tile_edge == PAPER_EDGE or larger > room

    def test_a_pass_in_float32_takes_twice_the_memory(self) -> None:
        half, full = (
            plan_of(free_bytes=600_000_000, compute=compute).tile_edge
            for compute in ("bfloat16", "float32")
        )
        assert (half, full) == (524, 364)

    def test_where_memory_decides_the_reason_names_it(self) -> None:
        reason = plan_of(free_bytes=200_000_000).reasons["tile_edge"]
        assert reason == "the largest whose training pass fits 0.2 GB"

    def test_with_no_memory_at_all_it_is_the_smallest(self) -> None:
        assert plan_of(free_bytes=0).tile_edge == Geometry(4).smallest_edge

    def test_a_depth_that_cannot_have_the_tile_of_the_paper_gets_the_largest_below(self) -> None:
        plan = plan_of(depth=3, free_bytes=PLENTY)
        assert plan.tile_edge == Geometry(3).edge_at_most(PAPER_EDGE)


class TestBatch:
    def test_it_is_one_tile_on_a_processor(self) -> None:
        assert plan_of().batch == 1

    def test_every_process_has_a_tile_of_its_own(self) -> None:
        plan = plan_of(processes=3)
        assert plan.batch == 3
        assert "for each of 3 processes" in plan.reasons["batch"]

    @pytest.mark.usefixtures("_gpu")
    @pytest.mark.parametrize(
        ("tiles", "processes", "expected"),
        [(8, 2, 8), (3, 2, 6), (8, 3, 6), (0, 4, 4), (9, 16, 16)],
    )
    def test_gpus_share_it_evenly(self, tiles: int, processes: int, expected: int) -> None:
        free_bytes = int(tiles * tile_bytes(32, 572, "bfloat16") / MEMORY_SHARE)
        plan = plan_of(free_bytes=free_bytes, processes=processes, tile_edge=572, device="auto")
        assert plan.batch == expected

    @pytest.mark.usefixtures("_gpu")
    @pytest.mark.parametrize(
        ("tiles", "expected"), [(0.5, 1), (1, 1), (2.99, 2), (3, 3), (8, 8), (1000, LARGEST_BATCH)]
    )
    def test_on_a_gpu_it_is_as_many_as_fit(self, tiles: float, expected: int) -> None:
        free_bytes = int(tiles * tile_bytes(32, 572, "bfloat16") / MEMORY_SHARE)
        assert plan_of(free_bytes=free_bytes, tile_edge=572, device="auto").batch == expected

    @pytest.mark.usefixtures("_gpu")
    def test_the_processor_that_was_asked_for_is_no_gpu(self) -> None:
        assert plan_of(device="cpu").batch == 1

    @pytest.mark.usefixtures("_gpu")
    def test_smaller_tiles_leave_room_for_more(self) -> None:
        free_bytes = 2 * int(tile_bytes(32, 572, "bfloat16") / MEMORY_SHARE)
        batches = [
            plan_of(free_bytes=free_bytes, tile_edge=edge, device="cuda").batch
            for edge in (572, 412, 252)
        ]
        assert batches == [2, 3, 8]


class TestSteps:
    def test_every_pixel_is_looked_at_150_times(self) -> None:
        plan = plan_of(census(pixels=5_000_000))
        assert plan.steps == round(150 * 5_000_000 / 388**2, -2)
        assert plan.reasons["steps"] == "every pixel is looked at 151 times"

    @pytest.mark.parametrize(("pixels", "expected"), [(1, FEWEST_STEPS), (10**12, MOST_STEPS)])
    def test_there_are_neither_too_few_nor_too_many(self, pixels: int, expected: int) -> None:
        assert plan_of(census(pixels=pixels)).steps == expected

    def test_a_larger_batch_takes_fewer(self) -> None:
        one, four = (plan_of(census(pixels=8_000_000), batch=batch).steps for batch in (1, 4))
        assert (one, four) == (8000, 2000)


class TestLearntParameters:
    """A run that begins from those of an artefact."""

    def test_it_makes_fewer_steps_at_a_lower_rate(self) -> None:
        drawn, learnt = plan_of(), plan_of(init=Path("nuclei.onnx"))
        assert learnt.steps == round(drawn.steps / 5, -2)
        assert learnt.learning_rate == pytest.approx(0.3 * drawn.learning_rate)

    def test_it_says_why(self) -> None:
        reasons = plan_of(init=Path("nuclei.onnx")).reasons
        assert reasons["steps"].endswith("it does not begin from nothing")
        assert "nuclei" in reasons["learning_rate"]


class TestIntensity:
    def test_sparse_spots_are_not_cut_off_with_the_noise(self) -> None:
        plan = plan_of(census(class_shares=(0.998, 0.002)))
        assert plan.intensity == IntensityRule(low=0.02, high=99.98)
        image = np.random.default_rng(0).normal(100, 5, (1, 500, 500)).astype(np.float32)
        image[0, :10, :25], image[0, 10:20, :25] = 1000, 3000
        scale = plan.intensity.measure(image)
        assert isinstance(scale, IntensityScale)
        assert scale.high == 3000
        assert scale.apply(np.array([1000]))[0] < 0

    @pytest.mark.parametrize("share", [0.0, 0.05, 0.8])
    def test_of_objects_that_are_no_sparse_spots_half_a_percent_is_cut_off(
        self, share: float
    ) -> None:
        assert plan_of(census(class_shares=(1 - share, share))).intensity == IntensityRule()

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
    def test_it_is_of_each_image_whatever_its_type(self, dtype: str) -> None:
        plan = plan_of(census(dtypes=(dtype,), low=-3.0 if dtype == "float32" else 0.0))
        assert plan.intensity == IntensityRule()

    def test_signed_values_on_one_scale_are_calibrated_and_get_its_range(self) -> None:
        spans = {"low": -32768.0, "high": 3071.0, "common_span": (-1000.0, 1500.5)}
        plan = plan_of(census(dtypes=("int16",), **spans))
        assert plan.intensity == IntensityRule(kind="range", low=-1000, high=1501)
        assert "calibrated" in plan.reasons["intensity"]

    @pytest.mark.parametrize(
        ("common_span", "why"),
        [
            (None, "the images have no scale in common"),
            ((0.0, 900.0), "hardly a value is negative"),
        ],
    )
    def test_other_signed_values_have_the_percentiles_of_each_image(
        self, common_span: tuple[float, float] | None, why: str
    ) -> None:
        plan = plan_of(census(dtypes=("int16",), low=-1.0, common_span=common_span))
        assert plan.intensity == IntensityRule()
        assert plan.reasons["intensity"].endswith(why)

    def test_a_signed_type_without_a_signed_value_is_as_good_as_none(self) -> None:
        assert plan_of(census(dtypes=("int16",), low=0.0)).intensity == IntensityRule()

    @pytest.mark.parametrize("in_channels", [2, 4, 5])
    @pytest.mark.parametrize("dtype", ["uint16", "int16"])
    def test_channels_that_are_no_colours_are_scaled_each_by_itself(
        self, in_channels: int, dtype: str
    ) -> None:
        spans = {"low": -1000.0, "common_span": (-1000.0, 1500.0)}
        plan = plan_of(census(in_channels=in_channels, dtypes=(dtype,), **spans))
        assert plan.intensity == IntensityRule(per_channel=True)
        assert "dim ones would vanish" in plan.reasons["intensity"]
        assert "percentile:0.5,99.5 per channel" in plan.describe()

    def test_colour_is_scaled_together(self) -> None:
        assert plan_of(census(in_channels=3)).intensity == IntensityRule()

    def test_sparse_spots_in_several_channels_are_kept_in_each(self) -> None:
        plan = plan_of(census(in_channels=2, class_shares=(0.998, 0.002)))
        assert plan.intensity == IntensityRule(low=0.02, high=99.98, per_channel=True)

    @pytest.mark.parametrize(("in_channels", "per_channel"), [(1, False), (3, False), (2, True)])
    def test_percentiles_that_were_asked_for_are_those_of_each_channel_too(
        self, in_channels: int, per_channel: bool
    ) -> None:
        counted = census(in_channels=in_channels)
        plan = plan_of(counted, intensity="percentile:1,99")
        assert plan.intensity == IntensityRule(low=1, high=99, per_channel=per_channel)
        assert plan_of(counted, intensity="range:0,9").intensity.kind == "range"

    @pytest.mark.parametrize(
        "text",
        ["range:5,1", "percentile:-1,50", "range:a,b", "range:0,1,2", "range:nan,1", "x:0,1"],
    )
    def test_what_is_no_rule_is_refused(self, text: str) -> None:
        with pytest.raises(DatasetError, match=f"--intensity {text} is no rule"):
            parse_intensity(text)


class TestBorders:
    def test_w0_is_that_of_the_paper_where_no_ridges_are_drawn(self) -> None:
        assert plan_of(ridges=False).border_weight == BORDER_WEIGHT == 10.0

    def test_ridges_weigh_more(self) -> None:
        assert plan_of(ridges=True).border_weight == RIDGE_WEIGHT > BORDER_WEIGHT

    @pytest.mark.parametrize(
        ("gap", "sigma"),
        [(0.0, 3.0), (3.2, 3.0), (3.3, 3.1), (9.0, 7.1), (13.0, 10.0), (39.0, 10.0)],
    )
    def test_sigma_follows_the_gap_between_objects(self, gap: float, sigma: float) -> None:
        plan = plan_of(census(median_gap=gap))
        assert plan.border_sigma == pytest.approx(sigma)
        assert plan.reasons["border_sigma"] == f"neighbours lie {gap:.1f} px apart, in the median"

    def test_without_neighbours_it_is_that_of_the_paper(self) -> None:
        plan = plan_of(census(median_gap=None))
        assert plan.border_sigma == BORDER_SIGMA == 5.0
        assert "no two objects" in plan.reasons["border_sigma"]

    def test_ridges_are_drawn_between_objects(self) -> None:
        plan = plan_of()
        assert plan.ridges
        assert plan.reasons["ridges"] == "25% of the objects touch another"

    def test_ridges_are_not_drawn_into_classes(self) -> None:
        assert not plan_of(census(label_kind="semantic")).ridges


class TestTiles:
    @pytest.mark.parametrize(
        ("share", "expected"), [(0.05, 0.5), (0.2999, 0.5), (0.3, 0.0), (0.8, 0.0)]
    )
    def test_sparse_objects_are_aimed_at(self, share: float, expected: float) -> None:
        plan = plan_of(census(class_shares=(1 - share, share)))
        assert plan.object_share == expected

    @pytest.mark.parametrize(
        ("shares", "expected"), [((0.39, 0.6, 0.01), 0.5), ((0.3, 0.3, 0.4), 0.0)]
    )
    def test_the_share_is_that_of_the_rarest_class(
        self, shares: tuple[float, ...], expected: float
    ) -> None:
        plan = plan_of(census(label_kind="semantic", class_shares=shares, num_classes=3))
        assert plan.object_share == expected
        assert "of the rarest class" in plan.reasons["object_share"]

    def test_a_class_that_no_image_has_is_not_the_rarest(self) -> None:
        shares = (0.5, 0.5, 0.0)
        plan = plan_of(census(label_kind="semantic", class_shares=shares, num_classes=3))
        assert plan.object_share == 0.0

    @pytest.mark.parametrize(
        ("small", "large", "zoom"), [(10, 10, 1.1), (10, 12.1, 1.1), (10, 22.5, 1.5), (5, 100, 2.0)]
    )
    def test_the_zoom_follows_how_much_the_images_differ_in_magnification(
        self, small: float, large: float, zoom: float
    ) -> None:
        plan = plan_of(census(typical_diameters=(small, large)))
        assert plan.largest_zoom == zoom
        assert plan.reasons["largest_zoom"].endswith(f"measures {small:.0f} to {large:.0f} px")

    def test_without_objects_it_is_the_least(self) -> None:
        assert plan_of(census(diameters=None, typical_diameters=None)).largest_zoom == 1.1

    def test_tiles_are_deformed_elastically(self) -> None:
        assert plan_of().elastic


class TestMainScore:
    def test_of_ids_of_objects_it_is_the_average_precision(self) -> None:
        plan = plan_of()
        assert plan.main_score == "ap50"
        assert plan.reasons["main_score"] == "labels are ids of objects"

    @pytest.mark.parametrize(
        ("foreground", "concentration", "expected"),
        [(0.5, 0.1, "v_rand"), (0.8, 0.49, "v_rand"), (0.49, 0.1, "iou"), (0.8, 0.5, "iou")],
    )
    def test_of_two_classes_it_is_v_rand_where_cells_fill_the_image_side_by_side(
        self, foreground: float, concentration: float, expected: str
    ) -> None:
        """One region that fills it is divided by nothing, whatever specks lie beside it."""
        counted = {"class_shares": (1 - foreground, foreground), "concentration": concentration}
        plan = plan_of(census(label_kind="semantic", **counted))
        assert plan.main_score == expected
        assert f"{foreground:.1%} of the pixels" in plan.reasons["main_score"]

    def test_of_more_classes_it_is_the_iou_however_much_they_fill(self) -> None:
        shares = (0.1, 0.5, 0.4)
        plan = plan_of(census(label_kind="semantic", num_classes=3, class_shares=shares))
        assert plan.main_score == "iou"

    @pytest.mark.parametrize("score", ["ap50", "v_rand"])
    def test_of_more_classes_no_score_of_one_foreground_is_taken(self, score: str) -> None:
        counted = census(label_kind="semantic", num_classes=3, class_shares=(0.4, 0.3, 0.3))
        with pytest.raises(DatasetError, match=f"--main-score {score} .* have 3 classes; .*iou"):
            plan_of(counted, main_score=score)

    @pytest.mark.parametrize("score", ["iou", "v_rand"])
    def test_of_ids_of_objects_no_score_is_taken_that_leaves_them_untold(self, score: str) -> None:
        with pytest.raises(DatasetError, match=f"--main-score {score} would leave the objects"):
            plan_of(main_score=score)

    def test_a_plan_of_before_it_was_chosen_leaves_it_to_the_kind_of_labels(self) -> None:
        fields = plan_of().model_dump(exclude={"main_score"})
        assert Plan.model_validate(fields).main_score is None


def test_the_free_memory_of_a_cpu_is_what_the_process_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.plan.usable_memory", lambda: 123)
    assert free_memory(torch.device("cpu")) == 123


def test_the_free_memory_of_a_gpu_is_that_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (123, 456))
    assert free_memory(torch.device("cuda")) == 123


def test_a_plan_with_a_value_that_this_software_does_not_know_is_refused() -> None:
    fields = small_plan().model_dump() | {"tiles": 3}
    with pytest.raises(ValueError, match="tiles"):
        Plan.model_validate(fields)

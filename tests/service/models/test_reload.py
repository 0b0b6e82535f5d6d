"""Files that come, change and go, while models are served."""

import gc
import weakref
from itertools import groupby
from pathlib import Path

import pytest

from model.artefact import Artefact
from model.errors import (
    ArtefactNotFound,
    InferenceFailed,
    ManifestInvalid,
    ModelNotFound,
    ServiceNotReady,
    ServiceStopping,
)
from service.models.folder import Stamp
from service.models.loaded import Loaded
from service.models.retries import FIRST_S
from service.models.served import MOST_DETAIL, Refused
from tests.service.models.shelf import Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Give a folder of one model, `cells`, in `1.onnx`, that is served."""
    shelf = Shelf(tmp_path)
    shelf.write("1", "cells")
    shelf.serve()
    return shelf


def test_a_new_file_is_served(shelf: Shelf) -> None:
    new = shelf.write("2", "nuclei")
    assert shelf.look() == ["added nuclei"]
    assert shelf.digests()["nuclei"] == new
    assert shelf.states() == {"cells": "ready", "nuclei": "ready"}


def test_a_changed_file_takes_the_place_of_what_was_served(shelf: Shelf) -> None:
    new = shelf.write("1", "cells", version=2)
    assert shelf.look() == ["swapped cells"]
    assert shelf.digests() == {"cells": new}
    assert shelf.catalogue.find("cells").loaded is not None


def test_nothing_is_served_before_it_is_warm_and_the_old_is_meanwhile(shelf: Shelf) -> None:
    old = shelf.digests()
    seen: list[dict[str, str]] = []
    shelf.before_warm_up = lambda: seen.append(shelf.digests())
    shelf.write("1", "cells", version=2)
    shelf.write("2", "nuclei")
    shelf.look()
    new = shelf.catalogue.find("cells").sha256
    assert [shelf_then for shelf_then, _ in groupby(seen)] == [old, {"cells": new}]


def test_a_look_at_what_is_as_it_was_reads_nothing(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_bytes", None)
    assert shelf.look() == []
    assert len(shelf.opened) == 1


def test_a_file_that_was_written_anew_with_the_same_bytes_is_not_opened(shelf: Shelf) -> None:
    shelf.touch("1")
    assert shelf.look() == []
    assert len(shelf.opened) == 1
    assert shelf.catalogue.find("cells").stamp == Stamp.of(shelf.path("1"))


def test_what_was_replaced_is_let_go(shelf: Shelf) -> None:
    old = weakref.ref(shelf.catalogue.served["cells"].loaded or shelf)
    assert not isinstance(old(), Shelf)
    shelf.write("1", "cells", version=2)
    shelf.look()
    shelf.opened.clear()
    gc.collect()
    assert old() is None


def test_a_bad_file_is_refused_by_its_name_and_the_old_model_stays(shelf: Shelf) -> None:
    old = shelf.digests()
    shelf.write("1", "cells", version=2, length=9)
    assert shelf.look() == ["refused 1.onnx"]
    assert (shelf.digests(), shelf.states()) == (old, {"cells": "ready"})
    assert shelf.reasons() == {"1.onnx": "1.onnx is damaged."}


def test_a_bad_file_is_not_read_again_as_it_is(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.write("1", "cells", version=2, length=9)
    shelf.look()
    monkeypatch.setattr(Path, "read_bytes", None)
    assert shelf.look() == []
    assert list(shelf.reasons()) == ["1.onnx"]


def test_a_file_that_was_half_written_is_served_once_it_is_whole(shelf: Shelf) -> None:
    for length in (9, 15):
        shelf.write("1", "cells", version=2, length=length)
        assert shelf.look() == ["refused 1.onnx"]
    whole = shelf.write("1", "cells", version=2)
    assert shelf.look() == ["swapped cells"]
    assert (shelf.digests(), shelf.reasons()) == ({"cells": whole}, {})


def test_the_bytes_that_are_served_are_no_longer_refused(shelf: Shelf) -> None:
    shelf.write("1", "cells", version=2, length=9)
    shelf.look()
    shelf.write("1", "cells")
    assert shelf.look() == []
    assert (len(shelf.opened), shelf.reasons()) == (1, {})


def test_a_watch_leaves_a_file_until_it_is_as_it_was_at_the_look_before(shelf: Shelf) -> None:
    shelf.look(settled=True)
    for length in (9, 15, None):
        whole = shelf.write("1", "cells", version=2, length=length)
        assert shelf.look(settled=True) == []
    assert shelf.look(settled=True) == ["swapped cells"]
    assert shelf.digests() == {"cells": whole}


def test_a_watch_leaves_a_model_whose_file_is_away_for_one_look(shelf: Shelf) -> None:
    shelf.write("2", "nuclei")
    shelf.look()
    shelf.remove("1")
    assert shelf.look(settled=True) == []
    shelf.write("1", "cells")
    shelf.look(settled=True)
    assert shelf.look(settled=True) == []
    shelf.remove("1")
    shelf.look(settled=True)
    assert shelf.look(settled=True) == ["removed cells"]


def fail() -> None:
    raise InferenceFailed("There is no memory for it.")


def test_what_does_not_warm_up_is_refused_with_the_reason(shelf: Shelf) -> None:
    old = shelf.digests()
    shelf.before_warm_up = fail
    shelf.write("1", "cells", version=2)
    assert shelf.look() == ["refused 1.onnx"]
    assert shelf.digests() == old
    assert shelf.reasons() == {"1.onnx": "cells did not warm up. There is no memory for it."}


def test_what_was_refused_for_no_fault_of_its_own_is_tried_again_when_somebody_asks(
    shelf: Shelf,
) -> None:
    shelf.before_warm_up = fail
    shelf.write("2", "nuclei")
    assert shelf.look() == ["refused 2.onnx"]
    shelf.before_warm_up = lambda: None
    assert [shelf.look(settled=True) for _ in range(2)] == [[], []]
    assert shelf.look() == ["added nuclei"]
    assert shelf.reasons() == {}


def test_a_file_that_changes_between_its_verification_and_its_opening_is_refused(
    shelf: Shelf,
) -> None:
    """Its new name may be another model's, and what it takes more than there is room for."""
    open_ = shelf.opening.open

    def change(artefact: Artefact) -> Loaded:
        shelf.write("2", "cells")
        return open_(artefact)

    shelf.opening.open = change  # type: ignore[method-assign]  # a seam
    shelf.write("2", "nuclei")
    assert shelf.look() == ["refused 2.onnx"]
    assert shelf.reasons() == {"2.onnx": "2.onnx changed while it was opened."}


def test_what_was_refused_at_the_start_is_served_once_it_is_whole(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.write("1", "cells")
    shelf.write("2", "nuclei", length=9)
    shelf.serve()
    assert (list(shelf.digests()), list(shelf.reasons())) == (["cells"], ["2.onnx"])
    assert shelf.look() == []
    shelf.write("2", "nuclei")
    assert shelf.look() == ["added nuclei"]
    assert shelf.reasons() == {}


def test_what_nobody_foresaw_is_a_reason_that_says_nothing_of_itself(shelf: Shelf) -> None:
    def break_down() -> None:
        raise RuntimeError("a secret")

    shelf.before_open = break_down
    shelf.write("2", "nuclei")
    assert shelf.look() == ["refused 2.onnx"]
    assert shelf.reasons() == {"2.onnx": "It cannot be opened; the log has the reason."}


def test_a_long_reason_is_cut_short() -> None:
    refused = Refused.of(Path("1.onnx"), Stamp(0, 0, 0), ManifestInvalid("no " * 10_000))
    assert len(refused.detail) == MOST_DETAIL


def test_of_two_files_of_one_name_the_one_that_was_there_stays(shelf: Shelf) -> None:
    old = shelf.digests()
    shelf.write("0", "cells", version=2)
    assert shelf.look() == ["refused 0.onnx"]
    assert shelf.reasons() == {"0.onnx": "0.onnx is named cells, as is 1.onnx, which stays."}
    assert shelf.look() == []
    assert shelf.digests() == old


@pytest.mark.parametrize("settled", [False, True])
def test_a_file_that_was_refused_for_its_name_is_served_once_the_name_is_free(
    shelf: Shelf, settled: bool
) -> None:
    new = shelf.write("2", "cells", version=2)
    shelf.look()
    shelf.remove("1")
    assert shelf.look(settled) == ["swapped cells"]
    assert (shelf.digests(), shelf.reasons()) == ({"cells": new}, {})


def test_a_name_is_free_too_once_its_file_has_another(shelf: Shelf) -> None:
    shelf.write("2", "cells", version=2)
    shelf.look()
    shelf.write("1", "nuclei")
    shelf.look()
    assert shelf.look() == ["added cells"]
    assert set(shelf.digests()) == {"nuclei", "cells"}


def test_a_file_that_was_renamed_is_served_without_a_gap(shelf: Shelf) -> None:
    old = shelf.digests()
    seen: list[dict[str, str]] = []
    shelf.before_warm_up = lambda: seen.append(shelf.digests())
    shelf.path("1").rename(shelf.path("2"))
    assert shelf.look() == ["loaded cells"]
    assert [shelf_then for shelf_then, _ in groupby(seen)] == [old]
    assert shelf.catalogue.find("cells").path == shelf.path("2")
    assert shelf.look() == []


def test_a_file_that_has_another_name_now_is_no_longer_served_by_the_old(shelf: Shelf) -> None:
    new = shelf.write("1", "nuclei")
    assert shelf.look() == ["removed cells", "added nuclei"]
    assert shelf.digests() == {"nuclei": new}


def test_a_model_without_a_file_goes_out_of_service(shelf: Shelf) -> None:
    shelf.write("2", "nuclei")
    shelf.look()
    shelf.remove("1")
    assert shelf.look() == ["removed cells"]
    assert list(shelf.digests()) == ["nuclei"]


def test_a_bad_file_that_is_gone_is_no_longer_named(shelf: Shelf) -> None:
    shelf.write("2", "nuclei", length=9)
    shelf.look()
    shelf.remove("2")
    assert shelf.look() == []
    assert shelf.reasons() == {}


def test_an_empty_folder_takes_nothing_out_of_service(shelf: Shelf) -> None:
    old = shelf.digests()
    shelf.remove("1")
    with pytest.raises(ArtefactNotFound, match="What was served still is") as caught:
        shelf.look()
    assert str(shelf.folder) not in str(caught.value)
    assert shelf.digests() == old


def test_a_folder_of_bad_files_alone_takes_nothing_out_of_service(shelf: Shelf) -> None:
    old = shelf.digests()
    shelf.remove("1")
    shelf.write("2", "nuclei", length=9)
    assert [shelf.look(), shelf.look()] == [["refused 2.onnx"], []]
    assert shelf.digests() == old
    shelf.write("2", "nuclei")
    assert shelf.look() == ["added nuclei", "removed cells"]


def test_a_model_that_failed_is_opened_anew_when_its_file_is_touched(shelf: Shelf) -> None:
    broken = shelf.catalogue.find("cells").loaded
    assert broken
    broken.state = "failed"
    shelf.touch("1")
    assert shelf.look() == ["loaded cells"]
    assert shelf.states() == {"cells": "ready"}


def test_a_model_that_failed_is_opened_anew_when_somebody_asks_for_it(shelf: Shelf) -> None:
    broken = shelf.catalogue.find("cells").loaded
    assert broken
    broken.state = "failed"
    assert shelf.look(settled=True) == []
    assert shelf.look() == ["loaded cells"]
    assert shelf.states() == {"cells": "ready"}


def test_a_watch_opens_a_model_that_failed_anew_after_a_while(shelf: Shelf) -> None:
    """It is not ready, so no traffic comes of which a turn could go well."""
    broken = shelf.catalogue.find("cells").loaded
    assert broken
    broken.state = "failed"
    assert shelf.look(settled=True) == []
    shelf.now = FIRST_S - 1
    assert shelf.look(settled=True) == []
    shelf.now = FIRST_S
    assert shelf.look(settled=True) == ["loaded cells"]
    assert shelf.states() == {"cells": "ready"}


def test_a_watch_tries_again_what_was_refused_for_no_fault_of_its_own(shelf: Shelf) -> None:
    shelf.before_warm_up = fail
    shelf.write("2", "nuclei")
    shelf.look()
    shelf.look(settled=True)
    shelf.now = FIRST_S
    assert shelf.look(settled=True) == ["refused 2.onnx"]
    shelf.before_warm_up = lambda: None
    shelf.now = 3 * FIRST_S
    assert shelf.look(settled=True) == ["added nuclei"]


def test_a_watch_never_tries_again_what_is_bad_as_it_is(shelf: Shelf) -> None:
    shelf.write("2", "nuclei", length=9)
    shelf.look()
    for _ in range(3):
        assert shelf.look(settled=True) == []
        shelf.now += 10 * FIRST_S


def test_a_model_that_failed_and_whose_file_is_gone_goes_out_of_service(shelf: Shelf) -> None:
    shelf.write("2", "nuclei")
    shelf.look()
    broken = shelf.catalogue.find("cells").loaded
    assert broken
    broken.state = "failed"
    shelf.remove("1")
    assert shelf.look() == ["removed cells"]


def test_what_is_warmed_up_when_the_service_stops_is_not_served(shelf: Shelf) -> None:
    old = shelf.digests()
    shelf.before_warm_up = shelf.reload.stopping.set
    shelf.write("1", "cells", version=2)
    shelf.write("2", "nuclei")
    with pytest.raises(ServiceStopping):
        shelf.look()
    assert (shelf.digests(), shelf.reasons()) == (old, {})
    with pytest.raises(ServiceStopping):
        shelf.look()
    assert len(shelf.opened) == 2


def test_a_model_that_was_let_go_is_opened_and_warmed_up_again(shelf: Shelf) -> None:
    shelf.let_go("cells")
    assert shelf.states() == {"cells": "unloaded"}
    loaded = shelf.reload.load("cells")
    assert (loaded.state, shelf.states()) == ("ready", {"cells": "ready"})
    assert [change.kind for change in shelf.changes] == ["loaded"]
    assert shelf.reload.load("cells") is loaded
    assert len(shelf.opened) == 2


def test_a_look_does_not_open_what_was_let_go(shelf: Shelf) -> None:
    shelf.let_go("cells")
    shelf.touch("1")
    assert shelf.look() == []
    assert shelf.states() == {"cells": "unloaded"}


def test_a_model_whose_file_changed_since_it_was_let_go_is_the_new_one(shelf: Shelf) -> None:
    shelf.let_go("cells")
    new = shelf.write("1", "cells", version=2)
    assert shelf.reload.load("cells").artefact.sha256 == new
    assert shelf.digests() == {"cells": new}
    assert [change.kind for change in shelf.changes] == ["swapped"]


def test_a_model_whose_file_is_bad_since_it_was_let_go_is_not_ready(shelf: Shelf) -> None:
    shelf.let_go("cells")
    shelf.write("1", "cells", version=2, length=9)
    tries = 0

    def count() -> None:
        nonlocal tries
        tries += 1

    shelf.before_open = count
    for _ in range(2):
        with pytest.raises(ServiceNotReady, match=r"cannot be opened\. 1\.onnx is damaged\."):
            shelf.reload.load("cells")
    assert (tries, shelf.states()) == (1, {"cells": "unloaded"})
    whole = shelf.write("1", "cells", version=2)
    assert shelf.reload.load("cells").artefact.sha256 == whole


def test_a_model_that_could_not_be_opened_for_want_of_memory_is_tried_again(shelf: Shelf) -> None:
    shelf.let_go("cells")
    shelf.before_warm_up = fail
    with pytest.raises(ServiceNotReady, match="no memory"):
        shelf.reload.load("cells")
    shelf.before_warm_up = lambda: None
    assert shelf.reload.load("cells").state == "ready"
    assert shelf.reasons() == {}


def test_a_model_that_was_let_go_and_whose_file_is_gone_is_not_ready(shelf: Shelf) -> None:
    shelf.let_go("cells")
    shelf.remove("1")
    with pytest.raises(ServiceNotReady, match="Its file is gone"):
        shelf.reload.load("cells")


def test_a_model_that_is_served_no_more_is_not_opened(shelf: Shelf) -> None:
    shelf.let_go("cells")
    shelf.write("1", "nuclei")
    with pytest.raises(ModelNotFound, match="there are nuclei"):
        shelf.reload.load("cells")

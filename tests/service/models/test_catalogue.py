"""Which models are open, within the memory that they may take."""

from contextlib import suppress
from pathlib import Path

from model.artefact import Artefact
from service.models.loaded import Loaded
from service.models.uses import Uses
from tests.conftest import square
from tests.service.models.shelf import Shelf
from tests.service.recording import EDGE, RecordingRuntime

ONE = Loaded([RecordingRuntime()], square(EDGE)).memory_bytes


def shelf_of(folder: Path, memory_bytes: int, *names: str) -> Shelf:
    shelf = Shelf(folder, memory_bytes)
    for name in names:
        shelf.write(name, name)
    shelf.serve()
    return shelf


def use(shelf: Shelf, *names: str) -> None:
    for name in names:
        with shelf.catalogue.uses.of(name):
            shelf.reload.load(name)


def open_names(shelf: Shelf) -> list[str]:
    return [name for name, state in shelf.states().items() if state != "unloaded"]


def test_without_a_bound_all_stay_open(tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, 0, "a", "b", "c")
    shelf.catalogue.make_room(10**15)
    assert open_names(shelf) == ["a", "b", "c"]


def test_the_longest_unused_is_let_go(tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, 2 * ONE, "a", "b", "c")
    use(shelf, "c", "a", "b")
    shelf.catalogue.make_room()
    assert open_names(shelf) == ["a", "b"]
    use(shelf, "a", "c")
    assert open_names(shelf) == ["a", "c"]
    kinds = [(change.kind, change.name) for change in shelf.changes]
    assert kinds == [("unloaded", "c"), ("unloaded", "b"), ("loaded", "c")]


def test_what_is_in_use_is_not_let_go_whatever_it_takes(tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, ONE, "a", "b")
    with shelf.catalogue.uses.of("a"):
        use(shelf, "b")
        shelf.catalogue.make_room()
        assert open_names(shelf) == ["a"]
        with shelf.catalogue.uses.of("b"):
            shelf.reload.load("b")
            shelf.catalogue.make_room()
            assert open_names(shelf) == ["a", "b"]
    shelf.catalogue.make_room()
    assert open_names(shelf) == ["b"]


def test_one_model_alone_stays_open_whatever_it_takes(tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, 1, "a", "b")
    shelf.catalogue.make_room(keep="b")
    assert open_names(shelf) == ["b"]


def test_a_new_model_makes_room_for_itself_and_one_that_is_replaced_is_kept(
    tmp_path: Path,
) -> None:
    shelf = shelf_of(tmp_path, 2 * ONE, "a", "b")
    use(shelf, "b")
    shelf.write("c", "c")
    shelf.look()
    assert open_names(shelf) == ["b", "c"]
    during: list[list[str]] = []
    shelf.before_warm_up = lambda: during.append(open_names(shelf))
    shelf.write("c", "c", version=2)
    shelf.look()
    assert during
    assert all(names == ["c"] for names in [*during, open_names(shelf)])


def test_room_is_made_before_a_model_is_opened(tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, 2 * ONE, "a", "b")
    open_, during = shelf.opening.open, list[list[str]]()

    def watched(artefact: Artefact) -> Loaded:
        during.append(open_names(shelf))
        return open_(artefact)

    shelf.opening.open = watched  # type: ignore[method-assign]  # a seam
    use(shelf, "b")
    shelf.write("c", "c")
    shelf.look()
    use(shelf, "a")
    assert during == [["b"], ["b"]]


def test_the_start_opens_what_there_is_room_for_and_a_request_the_rest(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 2 * ONE)
    for name in ("a", "b", "c"):
        shelf.write(name, name)
    shelf.start()
    assert shelf.states() == {"a": "warming-up", "b": "warming-up", "c": "unloaded"}
    assert len(shelf.opened) == 2
    use(shelf, "c")
    assert shelf.states()["c"] == "ready"


def test_a_use_that_fails_is_over() -> None:
    uses = Uses()
    with suppress(ValueError), uses.of("a"):
        assert uses.unused(["a", "b"]) == ["b"]
        raise ValueError
    assert uses.unused(["a", "b"]) == ["b", "a"]

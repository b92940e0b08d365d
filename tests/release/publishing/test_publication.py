"""Targets by name, addresses that get a token, and trying again."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.errors import ReleaseError, RequestError
from glideslope.release.publishing.directory_target import DirectoryTarget
from glideslope.release.publishing.hub_target import HubTarget
from glideslope.release.publishing.patience import Patience
from glideslope.release.publishing.publication import Changes, open_target
from glideslope.release.publishing.targets import LocalFile, Moved, TargetFile, Unsettled
from glideslope.store.digests import sha256_bytes
from glideslope.trust.hub import check_endpoint


@pytest.mark.parametrize("name", ["org/name", "a1/b-c.d_e"])
def test_two_words_with_a_slash_are_a_repository(name: str) -> None:
    target = open_target(name, endpoint="https://huggingface.co", token="hf_x")
    assert isinstance(target, HubTarget)
    assert target.name == name


@pytest.mark.parametrize("name", ["./published", "../published", "file:///published/here", "/published"])
def test_a_path_is_a_directory(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_target(name), DirectoryTarget)


@pytest.mark.parametrize(("url", "path"), [("file:///my%20disk", "/my disk"), ("file:///caf%C3%A9", "/café"),
                                           ("file://localhost/mnt/usb", "/mnt/usb"), ("file:///mnt/a#b", "/mnt/a#b"),
                                           ("file:///a%23%3Fb", "/a#?b")])
def test_an_address_of_this_machine_is_read_as_addresses_are_written(url: str, path: str) -> None:
    target = open_target(url)
    assert isinstance(target, DirectoryTarget)
    assert target.directory == Path(path)


@pytest.mark.parametrize("url", ["file://server/share", "file://", "file://mnt", "file:///a?b"])
def test_an_address_of_another_machine_is_refused(url: str) -> None:
    with pytest.raises(ReleaseError, match="expected an address of this machine, such as file:///mnt/usb"):
        open_target(url)


@pytest.mark.parametrize("name", ["", "org", "org/name/more", "org/na me", "https://huggingface.co/org/name", "org/--name", "org/.."])
def test_anything_else_is_no_target(name: str) -> None:
    with pytest.raises(ReleaseError):
        open_target(name, endpoint="https://huggingface.co")


@pytest.mark.parametrize("endpoint", ["https://huggingface.co", "https://hub.example:8443", "http://127.0.0.1:8000", "http://127.9.9.9",
                                      "http://[::1]:8000", "http://localhost:1234"])
def test_a_token_goes_over_https_or_to_this_machine(endpoint: str) -> None:
    check_endpoint(endpoint, sends_token=True)


@pytest.mark.parametrize("endpoint", [
    "http://huggingface.co", "http://192.168.0.7:8000", "http://127.0.0.1.evil.example", "http://localhost.evil.example", "http://0.0.0.0",
    "ftp://127.0.0.1", "huggingface.co", "", "http://user:word@127.0.0.1", "https://user@huggingface.co", "https://huggingface.co?x=1",
    "http://2130706433", "http://[::ffff:10.0.0.1]"])
def test_a_token_goes_nowhere_else(endpoint: str) -> None:
    with pytest.raises(RequestError):
        HubTarget("org/name", endpoint=endpoint, token="hf_x")
    with pytest.raises(RequestError):
        check_endpoint(endpoint, sends_token=True)


contents = st.dictionaries(st.sampled_from(["a", "b/c", "d", "e", "f"]), st.binary(max_size=3))


@given(contents, contents)
def test_changes_turn_what_is_shown_into_what_is_wanted(shown: dict[str, bytes], wanted: dict[str, bytes]) -> None:
    changes = Changes.between({path: TargetFile(len(data), sha256=sha256_bytes(data)) for path, data in shown.items()},
                              {path: LocalFile(Path(path), len(data), sha256_bytes(data)) for path, data in wanted.items()})
    result = {path: data for path, data in shown.items() if path not in changes.removed}
    result |= {path: wanted[path] for path in [*changes.added, *changes.changed]}
    assert result == wanted
    assert all(shown[path] == wanted[path] for path in changes.unchanged)
    assert all(shown[path] != wanted[path] for path in changes.changed)
    assert set(changes.added) | set(changes.changed) | set(changes.unchanged) == set(wanted)


def test_what_a_target_keeps_beside_is_no_change() -> None:
    kept = {".gitattributes": TargetFile(1, sha256="0" * 64), "STATUS.json": TargetFile(1, sha256="0" * 64)}
    assert Changes.between(kept, {}) == Changes({}, {}, {}, {})


class Flaky:
    """Something that fails as it is told: `answers` says for each call whether it is carried out, and what it raises."""

    def __init__(self, *answers: tuple[bool, Exception | None]) -> None:
        self.answers, self.num_carried_out, self.waited = list(answers), 0, list[float]()

    @property
    def patience(self) -> Patience:
        return Patience(num_tries=4, first_wait_s=1.0, sleep=self.waited.append)

    def is_done(self) -> bool:
        return self.num_carried_out > 0

    def act(self) -> None:
        is_carried_out, error = self.answers.pop(0)
        self.num_carried_out += is_carried_out
        if error:
            raise error


LOST, BUSY, MOVED = (True, Unsettled("lost")), (False, Unsettled("busy")), (False, Moved("moved"))


@pytest.mark.parametrize(("answers", "num_waits"), [([(True, None)], 0), ([LOST], 0), ([BUSY, BUSY, (True, None)], 2), ([BUSY, LOST], 1),
                                                    ([(True, Moved("it is there already"))], 0)])
def test_what_must_be_done_is_done_exactly_once(answers: list[tuple[bool, Exception | None]], num_waits: int) -> None:
    flaky = Flaky(*answers)
    assert flaky.patience.ensure(flaky.is_done, flaky.act)
    assert flaky.num_carried_out == 1
    assert len(flaky.waited) == num_waits
    assert not flaky.patience.ensure(flaky.is_done, flaky.act)


@pytest.mark.parametrize(("answers", "error"), [([BUSY] * 4, ReleaseError), ([MOVED], Moved), ([(False, None)] * 4, ReleaseError)])
def test_what_cannot_be_done_is_given_up(answers: list[tuple[bool, Exception | None]], error: type[Exception]) -> None:
    flaky = Flaky(*answers)
    with pytest.raises(error):
        flaky.patience.ensure(flaky.is_done, flaky.act)
    assert flaky.answers == []


def test_waits_grow() -> None:
    flaky = Flaky(BUSY, BUSY, BUSY, (True, None))
    flaky.patience.ensure(flaky.is_done, flaky.act)
    assert flaky.waited == [1.0, 2.0, 4.0]


def test_reading_is_tried_again_and_given_up() -> None:
    answers: list[Exception | str] = [Unsettled("busy"), "read"]

    def read() -> str:
        answer = answers.pop(0) if answers else Unsettled("busy")
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert Flaky().patience.read(read) == "read"
    with pytest.raises(ReleaseError, match="tried 4 times"):
        Flaky().patience.read(read)

import pytest

from devices.fleet.address import check_address, is_loopback
from search_spaces.errors import InputError


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("192.168.0.4", False), ("::", False), ("localhost.example", False),
    ],
)  # fmt: skip
def test_what_only_this_machine_reaches(host, own):
    assert is_loopback(host) is own


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://hub.example:8765/", "https://hub.example:8765"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1"),
        ("http://[::1]:9", "http://[::1]:9"),
        ("https://hub.example/behind/proxy/", "https://hub.example/behind/proxy"),
    ],
)
def test_addresses_that_are_taken(url, kept):
    assert check_address(url) == kept


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://hub.example:8765", "in clear"),
        ("http://127.0.0.1.evil.example", "in clear"),
        ("https://me:secret@hub.example", "no password"),
        ("ftp://hub.example", "no address"),
        ("hub.example:8765", "no address"),
        ("https://", "no address"),
        ("https://hub.example:port", "no address"),
        ("https://hub.example/?token=1", "no address"),
        ("https://[::1", "no address"),
    ],
)
def test_addresses_that_are_refused(url, why):
    with pytest.raises(InputError, match=why):
        check_address(url)


def test_a_password_is_not_repeated_in_the_message():
    with pytest.raises(InputError) as caught:
        check_address("https://me:secret@hub.example")
    assert "secret" not in str(caught.value)

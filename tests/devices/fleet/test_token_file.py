import pytest

from devices.fleet.token_file import read_admin_token, read_token
from search_spaces.errors import InputError


def test_the_only_line_is_the_token(tmp_path):
    path = tmp_path / "token"
    path.write_text("  a-token_1.2~3\n\n")
    assert read_token(path) == "a-token_1.2~3"


@pytest.mark.parametrize("text", ["", "\n", "two words", "one\ntwo", "tökén", "a\x00b"])
def test_anything_else_is_refused_without_being_shown(tmp_path, text):
    path = tmp_path / "token"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="must hold one token") as caught:
        read_token(path)
    assert not text.strip() or text.strip() not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="cannot read the token file"):
        read_token(tmp_path / "absent")
    path = tmp_path / "binary"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not text"):
        read_token(path)


@pytest.mark.parametrize("token", ["a", "secret", "aaaaaaaaaaaaaaaaaaaaaaaa", "abababababababab"])
def test_an_admin_token_that_can_be_guessed_is_refused(tmp_path, token):
    path = tmp_path / "token"
    path.write_text(token)
    with pytest.raises(InputError, match="can be guessed"):
        read_admin_token(path)
    assert read_token(path) == token
    path.write_text("the-admin-token")
    assert read_admin_token(path) == "the-admin-token"

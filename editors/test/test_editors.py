"""A completion is offered, accepted and saved. The file on disk must match the server's item."""

import pytest
from conftest import Emacs, Vim, until

CLASS = """\
class Rectangle:
    def __init__(self, width, height):
        self.width = width
        self.height = height

"""

ONLY_UTF_32 = """(cl-defmethod eglot-client-capabilities :around (_server)
    (let ((all (cl-call-next-method)))
        (plist-put (plist-get all :general) :positionEncodings ["utf-32"])
        all))"""


@pytest.fixture(params=[Emacs, Vim])
def editor(request, start):
    return start(request.param)


def check(editor, text, typed):
    editor.open(text, typed)
    item = editor.offer()
    editor.take()
    before, after = text.replace("\r", "").split("$0")
    lines = (before + typed).removesuffix(editor.line)
    expected = lines + editor.taken(item) + after.removeprefix(editor.after)
    editor.save()
    editor.saved(expected.replace("\n", "\r\n") if "\r" in text else expected)
    # Both editors send the text without carriage returns.
    until(lambda: editor.server_text() == expected)
    return item["textEdit"]["newText"]


def test_the_text_that_is_accepted_is_the_text_that_was_offered(editor):
    check(editor, CLASS + "    def area(self):\n        return $0\n", "self.")


SEVERAL_UNITS = CLASS + '    def area(self):\n        name = "😀é"; return $0\n'


def test_accepting_after_characters_of_several_units(editor):
    check(editor, SEVERAL_UNITS, "self.")


def test_accepting_after_characters_of_several_units_in_utf_32(start):
    """Given all of eglot's encodings, the server chooses UTF-8."""
    check(start(Emacs, ONLY_UTF_32), SEVERAL_UNITS, "self.")


def test_accepting_before_other_text(editor):
    check(editor, CLASS + "    def area(self):\n        return ($0)\n", "self.")


def test_carriage_returns_are_kept(editor):
    check(editor, (CLASS + "    def area(self):\n        return $0\n").replace("\n", "\r\n"), "self.")


def test_calls_are_taken_whole(editor):
    """ALE cuts items off at the first bracket."""
    area = "    def area(self):\n        return self.width * self.height\n\n"
    text = CLASS + area + "shapes = [Rectangle(1, 2)]\nfor shape in shapes:\n    print(shape.$0\n"
    assert "(" in check(editor, text, "a")


def test_several_lines_are_taken_whole(editor):
    text = "class Account:\n    def __init__(self, owner, balance, currency):$0\n"
    if isinstance(editor, Vim):
        # ALE sends requests only after a word or a dot, so type the beginning of the known answer.
        assert "\n" in check(editor, text, "\n        s")
    else:
        assert "\n" in check(editor, text.replace(":$0", "$0"), ":")


def test_vim_offers_nothing_where_ale_sends_a_wrong_position(start):
    """After `😀é` and before other text, ALE's bytes differ from the protocol's units."""
    editor = start(Vim)
    editor.open(CLASS + '    def area(self):\n        name = ["😀é", self$0]\n', ".")
    until(lambda: editor.vim("get(b:, 'ale_completion_result', v:null) is v:null ? '' : 'answered'"))
    assert editor.offered() == ""

"""Ghost text: seen, taken, put away, and never in the way."""

import random

import pytest
from conftest import EXAMPLES, until

CLASS = """\
class Rectangle:
    def __init__(self, width, height):
        self.width = width
        self.height = height

"""


def check_accept(editor, text, accepted="all", keys="<Tab>"):
    """Opens the text, waits for ghost text, takes it, and compares buffer, disk and server."""
    path = editor.open(text)
    ghost = editor.see_ghost()
    before, after = text.replace("\r", "").split("$0")
    editor.keys(keys)
    expected = (before + ghost + after).removesuffix("\n")
    editor.see_buffer(expected)
    editor.keys("<Esc>")
    until(lambda: editor.mode() == "n")
    assert editor.extmarks() == []
    editor.nvim.command("write")
    ending = "\r\n" if "\r" in text else "\n"
    on_disk = (expected + "\n").replace("\n", ending)
    assert path.read_bytes().decode() == on_disk
    assert editor.server_text() == on_disk
    return ghost


def test_it_is_taken_as_it_is_shown(editor):
    check_accept(editor, CLASS + "    def area(self):\n        return $0\n")


def test_before_a_closing_bracket_nothing_is_overwritten(editor):
    check_accept(editor, CLASS + "print(Rectangle($0))\n")


def test_in_the_middle_of_a_line_nothing_is_overwritten(editor):
    check_accept(editor, CLASS + "    def area(self):\n        return self.$0 * 2\n")


def test_files_with_carriage_returns_keep_them(editor):
    text = CLASS + "    def area(self):\n        return $0\n"
    check_accept(editor, text.replace("\n", "\r\n"))


def test_behind_characters_of_several_units(editor):
    check_accept(editor, CLASS + '    def area(self):\n        name = "😀é"; return $0\n')


def test_rust_and_typescript_too(editor):
    for name in ("words.rs", "cache.ts"):
        text = (EXAMPLES / name).read_text()
        editor.edit(EXAMPLES / name)
        assert editor.nvim.current.buffer[:] == text.removesuffix("\n").split("\n")
    line = '    let mut counts = HashMap::new();\n    for word in text.split_whitespace() {\n        $0\n'
    editor.open("use std::collections::HashMap;\n\nfn count(text: &str) {\n" + line, name="a.rs")
    assert editor.see_ghost()


def test_undo_takes_back_what_was_taken_and_nothing_else(editor):
    text = CLASS + "    def area(self):\n        $0\n"
    editor.open(text)
    editor.keys("return ")
    editor.see_typed("return ")
    ghost = editor.see_ghost()
    typed = text.replace("$0", "return ").removesuffix("\n")
    editor.keys("<Tab>")
    editor.see_buffer(typed + ghost)
    editor.keys("<Esc>u")
    editor.see_buffer(typed)
    editor.keys("u")
    editor.see_buffer(text.replace("$0", "").removesuffix("\n"))
    editor.keys("<C-r><C-r>")
    editor.see_buffer(typed + ghost)


def test_a_word_and_a_line_of_it(editor):
    text = CLASS + "    def area(self):\n        return $0\n"
    editor.open(text)
    ghost = editor.see_ghost()
    base = text.split("$0")[0]
    assert ghost.startswith("self.width"), ghost
    editor.keys("<M-Right>")
    editor.see_buffer(base + "self")
    until(lambda: editor.ghost() == ghost[4:])
    editor.keys("<M-Right>")
    editor.see_buffer(base + "self.")
    editor.keys("<M-C-Right>")
    editor.see_buffer(base + ghost.split("\n")[0])


def test_line_by_line_it_is_all_of_it(editor):
    editor.open(CLASS + '    def __repr__(self):\n        return f"Rectangle({self.width}, {self.height})"\n\n    def area(self):$0\n')
    # By hand it is longer.
    editor.keys("<M-Bslash>")
    until(lambda: editor.idle() and "\n" in editor.ghost())
    base, ghost = editor.buffer(), editor.ghost()
    taken = ""
    while taken != ghost:
        rest = ghost[len(taken):]
        assert editor.ghost() == rest
        taken += "\n" + rest[1:].split("\n")[0] if rest.startswith("\n") else rest.split("\n")[0]
        editor.keys("<M-C-Right>")
        editor.see_buffer(base + taken)


def test_candidates_go_round(editor):
    editor.open(CLASS + "    def area(self):\n        $0\n")
    first = editor.see_ghost()
    editor.keys("<M-]>")
    until(lambda: editor.extmarks() and any("(2/" in text for text, _ in editor.extmarks()[0][3]["virt_text"]))
    second = editor.ghost()
    assert second != first
    editor.keys("<M-[>")
    until(lambda: editor.ghost() != second)
    editor.keys("<M-]>")
    until(lambda: editor.ghost() == second)
    base = editor.buffer()
    editor.keys("<Tab>")
    editor.see_buffer(base + second)


def test_dismissed_it_stays_away(editor):
    text = CLASS + "    def area(self):\n        return $0\n"
    editor.open(text)
    editor.see_ghost()
    editor.keys("<C-]>")
    until(lambda: not editor.extmarks())
    editor.keys("<Tab>")
    editor.see_typed("\t" if editor.nvim.options["expandtab"] is False else " ")


def test_typing_through_keeps_it_and_typing_away_hides_it(editor):
    text = CLASS + "    def area(self):\n        return $0\n"
    editor.open(text)
    ghost = editor.see_ghost()
    for typed in range(1, 4):
        editor.keys(ghost[typed - 1])
        editor.see_typed(ghost[:typed])
        until(lambda: editor.ghost() == ghost[typed:])
    # Keys that come faster than any answer: a key to take it must not take what does not fit.
    editor.keys("~<Tab>")
    editor.see_typed("~\t")


def test_deleting_leaves_no_debris(editor):
    editor.open(CLASS + "    def area(self):\n        return $0\n")
    editor.see_ghost()
    editor.keys("<C-w><C-w><Esc>")
    until(lambda: editor.mode() == "n")
    assert editor.extmarks() == []
    assert editor.buffer() == (CLASS + "    def area(self):\n        ").rstrip("\n")


def test_the_menu_has_it_too(editor):
    text = CLASS + "    def area(self):\n        return self.$0\n"
    path = editor.open(text)
    editor.see_ghost()
    editor.keys("<C-x><C-o>")
    words = until(lambda: [item["word"] for item in editor.nvim.funcs.complete_info(["items"])["items"]])
    editor.keys("<C-n><C-y>" if editor.nvim.funcs.complete_info(["selected"])["selected"] < 0 else "<C-y>")
    until(lambda: not editor.nvim.funcs.pumvisible())
    assert editor.buffer() == text.split("$0")[0] + words[0].removeprefix("self.")
    editor.keys("<Esc>")
    editor.nvim.command("write")
    assert path.read_text() == editor.buffer() + "\n"


def test_the_menu_by_itself(start):
    setup = """
        vim.api.nvim_create_autocmd('LspAttach', { callback = function(event)
          vim.lsp.completion.enable(true, event.data.client_id, event.buf)
        end })
        vim.opt.completeopt = { 'menuone', 'noinsert' }
    """
    editor = start(setup)
    text = CLASS + "    def area(self):\n        return self.$0\n"
    editor.open(text)
    editor.lua("vim.lsp.completion.get()")
    until(lambda: editor.nvim.funcs.pumvisible())
    word = editor.nvim.funcs.complete_info(["items"])["items"][0]["word"]
    editor.keys("<C-y>")
    editor.see_buffer(text.split("$0")[0] + word)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("file_format", ["unix", "dos"])
def test_after_200_random_keys_editor_and_server_agree(editor, seed, file_format):
    editor.edit(editor.folder / "random.py")
    editor.nvim.options["shiftwidth"] = 4
    editor.nvim.command(f"setlocal fileformat={file_format}")
    draw = random.Random(seed)
    keys = ["a", "self", "(", ")", " ", "\"", "é", "😀", "def f", ":", "=", ".", "<CR>", "<BS>", "<C-w>", "<Del>",
            "<Left>", "<Right>", "<Up>", "<Down>", "<Home>", "<End>", "<Tab>", "<M-Right>", "<M-C-Right>", "<M-]>",
            "<C-]>", "<C-o>u", "<C-o>dd", "<C-o><C-r>", "<C-o>p"]
    editor.keys("iclass Shape:<CR>    def area(self):<CR>return ")
    until(lambda: editor.mode() == "i")
    for _ in range(20):
        editor.keys("".join(draw.choice(keys) for _ in range(10)))
        # Now and then a person looks at what is there.
        if draw.random() < 0.5:
            until(editor.idle)
    editor.keys("<Esc><Esc>")
    until(lambda: editor.mode() == "n")
    ending = "\r\n" if file_format == "dos" else "\n"
    until(editor.idle)
    assert editor.server_text() == editor.buffer().replace("\n", ending) + ending
    assert editor.extmarks() == []

"""Ghost text: shown, accepted, dismissed, and never in the way."""

import random
import re

import pytest
from conftest import CLASS, until

AREA = CLASS + "    def area(self):\n        return $0\n"
RUST = """\
struct Rectangle {
    width: f64,
    height: f64,
}

impl Rectangle {
    fn area(&self) -> f64 {
        $0
    }
}
"""
TYPESCRIPT = """\
class Rectangle {
  constructor(readonly width: number, readonly height: number) {}

  area(): number {
    return $0;
  }
}
"""

PLACES = {
    "at the end of a line": ("a.py", AREA),
    "in the middle of a line": ("a.py", CLASS + "    def area(self):\n        return self.$0 * 2\n"),
    "before a closing bracket": ("a.py", CLASS + "print(Rectangle($0))\n"),
    "after wide characters": ("a.py", CLASS + '    def area(self):\n        name = "😀é"; return $0\n'),
    "in a last line without a line break": ("a.py", AREA.removesuffix("\n")),
    "with carriage returns": ("a.py", AREA.replace("\n", "\r\n")),
    "with carriage returns before a bracket": ("a.py", (CLASS + "print(Rectangle($0))\n").replace("\n", "\r\n")),
    "in Rust": ("a.rs", RUST),
    "in TypeScript": ("a.ts", TYPESCRIPT),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_text_that_is_accepted_is_the_text_that_was_shown(editor, place):
    name, text = PLACES[place]
    path = editor.open(text, name)
    ghost = editor.see_ghost()
    before, after = text.replace("\r", "").split("$0")
    editor.keys("<Tab>")
    taken = before + ghost + after
    editor.see_buffer(taken.removesuffix("\n"))
    editor.keys("<Esc>")
    until(lambda: editor.mode() == "n")
    assert editor.extmarks() == []
    ending = "\r\n" if "\r" in text else "\n"
    # Neovim does not report the line break that it adds to the last line on disk.
    assert editor.server_text() == taken.replace("\n", ending)
    editor.nvim.command("write")
    on_disk = taken.removesuffix("\n") + "\n"
    on_disk = on_disk.replace("\n", ending)
    assert path.read_bytes().decode() == on_disk


def test_options_that_change_typed_text_do_not_change_accepted_text(editor):
    """Automatic indentation and automatic line breaks."""
    editor.open(CLASS + "$0\n")
    editor.nvim.command("setlocal autoindent textwidth=20 formatoptions+=t indentexpr=")
    editor.keys("    def area(self):<CR>    return ")
    editor.see_typed("return ")
    base, ghost = editor.buffer(), editor.see_ghost()
    assert len("        return " + ghost) > 20
    editor.keys("<Tab>")
    editor.see_buffer(base + ghost)
    editor.keys("<Esc>")
    until(lambda: editor.mode() == "n")
    assert editor.buffer() == base + ghost


def test_undo_removes_what_was_accepted_and_nothing_else(editor):
    text = AREA.replace("return $0", "$0")
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


def test_accepting_the_next_word_and_the_next_lines(editor):
    editor.open(CLASS + "    def $0\n")
    # An invoked completion is longer.
    editor.keys("<M-Bslash>")
    until(lambda: editor.idle() and "\n" in editor.ghost())
    base, ghost = editor.buffer(), editor.ghost()
    word = re.match(r"\w+", ghost)[0]
    first_line, second_line = ghost.split("\n")[:2]
    # At the end of a line, the line break is accepted together with the next line.
    for keys, taken in [
        ("<M-Right>", word),
        ("<M-C-Right>", first_line),
        ("<M-C-Right>", first_line + "\n" + second_line),
    ]:
        editor.keys(keys)
        editor.see_buffer(base + taken)
        until(lambda: editor.idle() and editor.ghost() == ghost.removeprefix(taken))


def test_candidates_wrap_around(editor):
    editor.open(CLASS + "    def scale(self, $0):\n")
    first = editor.see_ghost()
    editor.keys("<M-]>")
    until(lambda: editor.extmarks() and any("(2/" in text for text, _ in editor.extmarks()[0][3]["virt_text"]))
    second = editor.ghost()
    editor.keys("<M-[>")
    until(lambda: editor.ghost() == first)
    editor.keys("<M-]>")
    until(lambda: editor.ghost() == second != first)
    editor.keys("<Tab>")
    editor.see_buffer((CLASS + f"    def scale(self, {second}):\n").removesuffix("\n"))


def test_dismissed_ghost_text_stays_away(editor):
    editor.open(AREA)
    editor.nvim.command("setlocal noexpandtab softtabstop=0")
    editor.see_ghost()
    editor.keys("<C-]>")
    until(lambda: not editor.extmarks())
    editor.keys("<Tab>")
    editor.see_typed("return \t")


def test_typing_through_ghost_text_keeps_it(editor):
    editor.open(AREA)
    ghost = editor.see_ghost()
    for typed in range(1, 4):
        editor.keys(ghost[typed - 1])
        editor.see_typed(ghost[:typed])
        until(lambda: editor.ghost() == ghost[typed:])


def test_fast_keys_accept_nothing_that_does_not_fit(editor):
    editor.open(AREA)
    editor.nvim.command("setlocal noexpandtab softtabstop=0")
    editor.see_ghost()
    editor.keys("~<Tab>")
    editor.see_typed("return ~\t")


def test_deleting_leaves_no_debris(editor):
    editor.open(AREA)
    editor.see_ghost()
    editor.keys("<C-w><C-w><Esc>")
    until(lambda: editor.mode() == "n")
    assert editor.extmarks() == []
    assert editor.buffer() == AREA.replace("        return $0\n", "")


# What the user does while ghost text is shown, and the mode afterwards.
ELSEWHERE = {
    "normal mode": ("<Esc>", "n"),
    "one command": ("<C-o>", "niI"),
    "replace mode": ("<Insert>", "R"),
    "another buffer": ("<Cmd>new<CR>", "i"),
    "the command line's window": ("<Esc>q:", "n"),
    "beyond the text": ("<Cmd>set virtualedit=all<CR><Right>", "i"),
    "a buffer that is not modifiable": ("<Cmd>setlocal nomodifiable<CR><Left>", "i"),
}


@pytest.mark.parametrize("place", ELSEWHERE)
def test_ghost_text_is_shown_only_where_it_can_be_accepted(editor, place):
    keys, mode = ELSEWHERE[place]
    editor.open(AREA)
    editor.see_ghost()
    buffer = editor.nvim.current.buffer
    editor.keys(keys)
    until(lambda: editor.mode() == mode)
    until(lambda: not editor.extmarks(buffer))
    assert not editor.lua("return require('interline').accept()")
    assert "\n".join(buffer[:]) == AREA.replace("$0", "").removesuffix("\n")
    editor.nvim.command("set virtualedit=")


def test_a_macro_repeats_what_was_typed(editor):
    editor.open(AREA)
    editor.nvim.command("setlocal noexpandtab softtabstop=0")
    editor.keys("<Esc>qqox<Tab>y<Esc>q@q")
    until(lambda: [line.lstrip() for line in editor.nvim.current.buffer[-2:]] == ["x\ty", "x\ty"])


MENU = "vim.lsp.config('interline', { settings = { interline = { completionMenu = true } } })\n"


def test_the_menu_has_the_completion_too(start):
    editor = start(MENU)
    path = editor.open(AREA)
    until(editor.idle)
    editor.nvim.command("set completeopt=menuone,noinsert")
    editor.keys("<C-x><C-o>")
    items = until(lambda: editor.nvim.funcs.complete_info(["items"])["items"])
    assert editor.nvim.funcs.complete_info(["selected"])["selected"] == 0
    # While an item is selected, there is no ghost text.
    until(lambda: editor.idle() and not editor.extmarks())
    editor.keys("<C-y>")
    editor.see_buffer(AREA.replace("$0\n", items[0]["word"]))
    editor.keys("<Esc>")
    until(lambda: editor.mode() == "n")
    editor.nvim.command("write")
    assert path.read_text() == editor.server_text() == AREA.replace("$0", items[0]["word"])


def test_ghost_text_returns_when_the_menu_is_closed(start):
    editor = start(MENU)
    editor.open(AREA)
    ghost = editor.see_ghost()
    editor.nvim.command("set completeopt=menuone,noinsert")
    editor.keys("<C-x><C-o>")
    until(lambda: editor.nvim.funcs.pumvisible() and not editor.extmarks())
    editor.keys("<C-e>")
    until(lambda: editor.ghost() == ghost)


AUTOMATIC_MENU = """
    vim.api.nvim_create_autocmd('LspAttach', { callback = function(event)
      vim.lsp.completion.enable(true, event.data.client_id, event.buf, { autotrigger = true })
    end })
    vim.opt.completeopt = { 'menu', 'menuone', 'noinsert' }
"""


def test_the_menu_does_not_hide_ghost_text(start):
    editor = start(AUTOMATIC_MENU)
    editor.open(CLASS + "    def area(self):\n        return self$0\n")
    # The dot opens the menu.
    editor.keys(".")
    editor.see_typed("self.")
    assert editor.see_ghost()
    assert not editor.nvim.funcs.pumvisible()


def test_automatic_completion_in_the_menu(start):
    editor = start(MENU + AUTOMATIC_MENU)
    editor.open(CLASS + "    def area(self):\n        return self.wi$0\n")
    until(editor.idle)
    editor.lua("vim.lsp.completion.get()")
    word = until(lambda: editor.nvim.funcs.complete_info(["items"])["items"])[0]["word"]
    assert word.startswith("wi")
    editor.keys("<C-y>")
    editor.see_buffer(CLASS + "    def area(self):\n        return self." + word)


KEYS = ["a", "self", "(", ")", " ", '"', "é", "😀", "def f", ":", "=", ".", "<CR>", "<BS>", "<C-w>", "<Del>", "<Left>",
        "<Right>", "<Up>", "<Down>", "<Home>", "<End>", "<Tab>", "<M-Right>", "<M-C-Right>", "<M-]>", "<C-]>",
        "<C-o>u", "<C-o>dd", "<C-o><C-r>", "<C-o>p", "<C-x><C-o>", "<C-n>", "<C-y>", "<C-e>"]


@pytest.mark.parametrize(("seed", "file_format"), [(0, "unix"), (1, "dos")])
def test_editor_and_server_have_the_same_text_after_200_random_keys(editor, seed, file_format):
    editor.edit(editor.folder / "random.py")
    editor.nvim.command(f"setlocal shiftwidth=4 fileformat={file_format}")
    draw = random.Random(seed)
    editor.keys("iclass Shape:<CR>    def area(self):<CR>return ")
    until(lambda: editor.mode() == "i")
    for _ in range(20):
        editor.keys("".join(draw.choice(KEYS) for _ in range(10)))
        # Pause now and then, as a person does.
        if draw.random() < 0.2:
            until(editor.idle)
    # This shows that all keys have been handled. The random keys may have left insert mode too.
    editor.keys("<Esc><Esc>:let b:typed = 1<CR>")
    until(lambda: "typed" in editor.nvim.funcs.getbufvar("", ""))
    until(editor.idle)
    ending = "\r\n" if file_format == "dos" else "\n"
    assert editor.server_text() == editor.buffer().replace("\n", ending) + ending
    assert editor.extmarks() == []

"""Neovim 0.12 without the plugin, set up with the snippet in the README."""

import pytest
from conftest import CLASS, ROOT, SERVER, Editor, until

PLACES = {
    "at the end of a line": CLASS + "    def area(self):\n        return $0\n",
    "in the middle of a line": CLASS + "    def area(self):\n        return self.$0 * 2\n",
    "before a closing bracket": CLASS + "print(Rectangle($0))\n",
    "with carriage returns": (CLASS + "print(Rectangle($0))\n").replace("\n", "\r\n"),
}


class Native(Editor):
    """Reads Neovim's own ghost text."""

    NAMESPACE = "nvim.lsp.inline_completion"

    def ready(self):
        until(lambda: self.lua("return #vim.lsp.get_clients({ bufnr = 0 }) == 1"))
        until(lambda: self.lua("return _G.status and not _G.status.busy"))

    def screen_line(self):
        """The cursor's line as drawn."""
        row = self.nvim.funcs.screenrow()
        return self.lua("""
            vim.cmd.redraw()
            local row, cells = ..., {}
            for col = 1, vim.o.columns do
              table.insert(cells, vim.fn.screenstring(row, col))
            end
            return table.concat(cells)
        """, row).rstrip()


@pytest.fixture(scope="module")
def native(tmp_path_factory, env):
    readme = (ROOT / "README.md").read_text()
    snippet = next(part for part in readme.split("```") if "inline_completion" in part).removeprefix("lua\n")
    snippet = snippet.replace("{ 'interline' }", f"{{ '{SERVER}' }}")
    snippet += "vim.lsp.handlers.didChangeStatus = function(_, status) _G.status = status end\n"
    editor = Native("0.12", tmp_path_factory.mktemp("native"), env, snippet, plugin="")
    yield editor
    editor.close()


@pytest.mark.parametrize("place", PLACES)
def test_ghost_text_is_shown_and_accepted(native, place):
    text = PLACES[place]
    path = native.open(text)

    def ghost():
        marks = native.extmarks()
        return "".join(part for part, _ in marks[0][3]["virt_text"]) if marks else ""

    shown = until(ghost)
    before, after = text.replace("\r", "").split("$0")
    line = before.rsplit("\n", 1)[1] + shown + after.split("\n")[0]
    until(lambda: native.screen_line() == line)
    native.keys("<Tab>")
    native.see_buffer((before + shown + after).removesuffix("\n"))
    native.keys("<Esc>")
    until(lambda: native.mode() == "n")
    native.nvim.command("write")
    assert path.read_bytes().decode() == (before + shown + after).replace("\n", "\r\n" if "\r" in text else "\n")
    native.clean()

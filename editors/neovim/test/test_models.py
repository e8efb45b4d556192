"""`:Interline models` and `:Interline model`: the list, pulling from a Hub on loopback, switching, and the offer."""

import subprocess
import sys

import pytest
from conftest import CLASS, ROOT, until

AREA = CLASS + "    def area(self):\n        return $0\n"
BETTER = "qwen2.5-coder-0.5b"
CONFIGURED = "vim.lsp.config('interline', { settings = { interline = { model = 'smollm2-135m-fim' } } })\n"


@pytest.fixture(scope="session")
def hub():
    """The address of the Hub."""
    script = ROOT / "editors" / "test" / "hub.py"
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip()
        process.kill()


@pytest.fixture
def home(tmp_path, hub):
    """An empty store and an empty state, which all editors of a test share."""
    return {
        "HF_ENDPOINT": hub,
        "INTERLINE_MODELS_DIR": str(tmp_path / "models"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }


# Hears each progress, as a plugin that shows it does.
HEAR_PROGRESS = """
_G.progress = {}
vim.api.nvim_create_autocmd('LspProgress', { callback = function(event)
  table.insert(_G.progress, event.data.params.value.message)
end })
"""
# Shows the list to the test, which then chooses.
HEAR_SELECT = """
vim.ui.select = function(items, options, done)
  _G.lines, _G.choose = vim.tbl_map(options.format_item, items), function(index) done(items[index]) end
end
"""


def listed(editor):
    """The lines of the list that is shown."""
    editor.lua("_G.lines = nil")
    editor.interline("models")
    return until(lambda: editor.lua("return _G.lines"))


def choose(editor, name):
    index = [line.split(" ")[0] for line in listed(editor)].index(name)
    editor.lua("_G.choose(...)", index + 1)


def see_tiny(editor):
    """Waits for ghost text of the model from the Hub. It follows what was typed last."""
    editor.keys(" ")
    until(lambda: editor.ghost() == "tiny")


def test_a_model_is_pulled_and_used_while_the_user_types_and_then_at_the_next_start(start, home):
    editor = start(HEAR_SELECT + HEAR_PROGRESS, **home)
    editor.open(AREA)
    assert editor.see_ghost() != "tiny"
    lines = listed(editor)
    assert [line.split(" ")[0] for line in lines][:2] == ["smollm2-135m-fim", BETTER]
    assert "(in use, " in lines[0]
    assert "(not here, recommended, 491 MB, 620 MB of memory, Apache-2.0, " in lines[1]

    editor.interline("model owner/tiny")
    typed = 0
    while "tiny is in use" not in editor.heard():
        editor.keys("x" if typed % 10 else " ")
        typed += 1
        until(editor.idle)
    assert any("of 3 MB" in message for message in editor.lua("return _G.progress"))
    see_tiny(editor)
    editor.interline("model")
    editor.hear("Interline: tiny (in use, ")

    # Back, from the list, and again, by its name.
    choose(editor, "smollm2-135m-fim")
    editor.hear("smollm2-135m-fim is in use")
    editor.keys("<CR>self.")
    until(lambda: editor.idle() and editor.ghost() not in ("", "tiny"))
    editor.lua("_G.heard = {}")
    editor.interline("model tiny")
    editor.hear("tiny is in use")
    see_tiny(editor)

    editor = start(**home)
    editor.open(AREA)
    see_tiny(editor)
    # What the configuration names goes first, and the command changes it until Neovim exits.
    editor = start(CONFIGURED, **home)
    editor.open(AREA)
    assert editor.see_ghost() != "tiny"
    editor.interline("model tiny")
    until(lambda: "tiny" in editor.status()["message"].lower() and not editor.status()["busy"])
    see_tiny(editor)


def test_a_cancelled_pull_leaves_the_model_in_use_and_is_continued(start, home):
    editor = start(HEAR_SELECT, **home)
    editor.open(AREA)
    ghost = editor.see_ghost()
    editor.keys("<Esc>")
    until(lambda: editor.mode() == "n")
    editor.interline("model owner/slow")
    editor.hear("Interline: owner/slow, ")
    until(lambda: "%" in editor.lua("return require('interline').status()"))
    editor.interline("cancel")
    editor.hear("Interline: cancelled")
    assert editor.lua("return require('interline').status()") == "Interline"
    assert not [line for line in listed(editor) if line.startswith("slow")]
    editor.keys("A")
    until(lambda: editor.ghost() == ghost)
    editor.interline("cancel")
    editor.hear("there is nothing to cancel")

    editor.interline("model owner/slow")
    editor.hear("slow is in use")
    see_tiny(editor)


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ("owner/none", "does not exist (404)"),
        ("nonsense", "nor OWNER/REPO[:FILE]"),
        ("/tmp", "/tmp has no ONNX graph"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(start, home, named, problem):
    editor = start(**home)
    editor.open(AREA)
    ghost = editor.see_ghost()
    editor.interline(f"model {named}")
    editor.hear(problem)
    editor.keys("<Esc>A")
    until(lambda: editor.ghost() == ghost)


def test_names_of_models_are_completed(start, home):
    editor = start(**home)
    editor.edit(editor.folder / "a.py")
    (editor.folder / "models").mkdir()
    complete = lambda line: editor.nvim.funcs.getcompletion(line, "cmdline")
    assert complete("Interline model ") == ["qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b", "smollm2-135m-fim"]
    assert complete("Interline model qwen2.5-coder-0") == [BETTER]
    assert complete(f"Interline model {editor.folder}/m") == [f"{editor.folder}/models/"]


def see_ghosts(editor, name, count):
    """Sees ghost text in so many files, and then leaves insert mode."""
    for number in range(count):
        editor.keys("<Esc>")
        until(lambda: editor.mode() == "n")
        editor.open(AREA, f"{name}{number}.py")
        editor.see_ghost()
    leave_insert_mode(editor)


def leave_insert_mode(editor):
    editor.keys("<Esc>i<Esc>")
    until(lambda: editor.mode() == "n" and editor.idle())


def test_the_recommended_model_is_offered_once(start, home):
    editor = start(**home)
    see_ghosts(editor, "few", 5)
    assert BETTER not in editor.heard()
    # Not to those who want no offers, or no downloads.
    editor.nvim.vars["interline_offer"] = False
    see_ghosts(editor, "enough", 15)
    editor.nvim.command("unlet g:interline_offer")
    editor.lua("require('interline.server').configure({ offline = true })")
    leave_insert_mode(editor)
    assert BETTER not in editor.heard()
    editor.lua("require('interline.server').configure({ offline = false })")
    leave_insert_mode(editor)
    said = editor.hear(f"{BETTER} completes better: :Interline models")
    # A longer line waits for a key where 80 columns show the typed command too.
    assert max(map(len, said.splitlines())) <= 67

    editor = start(**home)
    see_ghosts(editor, "again", 21)
    assert BETTER not in editor.heard()


def test_nothing_is_offered_where_the_configuration_names_a_model(start, home):
    editor = start(CONFIGURED, **home)
    see_ghosts(editor, "named", 21)
    assert BETTER not in editor.heard()

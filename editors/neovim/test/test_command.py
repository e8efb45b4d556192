"""`:Interline`, `:checkhealth interline`, the help, and what is loaded at startup."""

import json
import re
import subprocess

import pytest
from conftest import CLASS, EXAMPLES, PLUGIN, USE_PLUGIN, nvim_binary, scripted, until

AREA = CLASS + "    def area(self):\n        return $0\n"


def test_subcommands_are_offered(editor):
    editor.edit(editor.folder / "a.py")
    own = ["cancel", "disable", "enable", "log", "model", "models", "restart", "status", "why"]
    assert set(own) <= set(editor.nvim.funcs.getcompletion("Interline ", "cmdline"))
    for line, expected in {
        "Interline st": ["status"],
        "Interline disable ": ["buffer", "everywhere", "language"],
        "Interline enable l": ["language"],
    }.items():
        assert editor.nvim.funcs.getcompletion(line, "cmdline") == expected
    editor.interline("nonsense")
    assert "expected one of cancel, disable, document, enable" in editor.hear("nonsense")


def test_status_and_why_show_the_latest_requests(editor):
    editor.open(AREA)
    editor.see_ghost()
    editor.interline("status")
    assert "is ready" in editor.hear("last request:")
    editor.interline("why")
    assert "ms; prompt:" in editor.hear("The latest requests")


def test_a_file_with_secrets_shows_as_inactive_with_the_reason(editor):
    editor.open("PASSWORD=$0\n", name=".env")
    status = until(lambda: editor.status()["kind"] == "Inactive" and editor.status())
    assert ".env" in status["message"]
    assert editor.ghost() == ""
    editor.interline("status")
    editor.hear(status["message"])


def test_the_status_follows_the_current_buffer(editor):
    editor.open("PASSWORD=$0\n", name=".env")
    editor.keys("<Esc>")
    for name, kind in (("a.py", "Normal"), (".env", "Inactive"), ("a.py", "Normal")):
        editor.nvim.command(f"edit {editor.folder / name}")
        until(lambda: editor.status()["kind"] == kind)


@pytest.mark.parametrize("scope", ["buffer", "language", "everywhere"])
def test_completion_is_switched_off_and_on(editor, scope):
    editor.open(AREA)
    ghost = editor.see_ghost()
    editor.interline(f"disable {scope}")
    # The new setting applies to the next request.
    editor.keys("<Esc>A")
    until(lambda: editor.mode() == "i")
    if scope == "buffer":
        until(lambda: editor.lua("return require('interline.server').client(0) == nil"))
        assert not editor.extmarks()
    else:
        until(lambda: editor.status()["kind"] == "Inactive")
        until(lambda: editor.idle() and not editor.extmarks())
    editor.interline(f"enable {scope}")
    editor.keys("<Esc>A")
    until(lambda: editor.ghost() == ghost)


def test_restart_starts_another_process(editor):
    editor.open(AREA)
    ghost = editor.see_ghost()
    editor.keys("<Esc>")
    before = editor.server_process()
    editor.interline("restart")
    until(lambda: editor.status() and editor.lua("return require('interline.server').client(0) ~= nil"))
    assert editor.server_process() != before
    editor.ready()
    editor.keys("A")
    until(lambda: editor.ghost() == ghost)


def test_log_opens_the_log(editor):
    editor.edit(editor.folder / "a.py")
    editor.interline("log")
    assert editor.nvim.current.buffer.name.endswith("lsp.log")


def test_checkhealth_finds_no_problems(editor):
    editor.edit(editor.folder / "a.py")
    editor.nvim.command("checkhealth interline")
    report = until(lambda: "the server is running" in editor.buffer() and editor.buffer())
    assert "ERROR" not in report and "WARNING" not in report, report
    assert "OK interline " in report, report
    assert "the model smollm2-135m-fim (in use, " in report, report
    assert "`:Interline model qwen2.5-coder-0.5b` gets it" in report, report


def test_announced_tasks_are_subcommands(start):
    editor = start()
    asked = editor.folder / "asked.json"
    editor.lua(scripted("translate", asked))
    path = editor.folder / "a.py"
    path.write_text("one\ntwo\nthree\n")
    editor.nvim.command(f"edit {path}")
    until(lambda: "translate" in editor.nvim.funcs.getcompletion("Interline ", "cmdline"))
    assert editor.nvim.funcs.getcompletion("Interline tr", "cmdline") == ["translate"]
    assert "accept" not in editor.nvim.funcs.getcompletion("Interline ", "cmdline")
    editor.lua("vim.diagnostic.set(vim.api.nvim_create_namespace('test'), 0, {{ lnum = 1, col = 1, message = 'no' }})")
    wrong = {"range": {"start": {"line": 1, "character": 1}, "end": {"line": 1, "character": 1}}, "message": "no"}
    for range_given, (first, last), diagnostics in [("2", (1, 2), [wrong]), ("", (0, 0), [])]:
        editor.nvim.command(f"{range_given}Interline translate rust")
        until(lambda: editor.buffer() == "translated")
        assert editor.nvim.current.buffer.options["filetype"] == "rust"
        assert "a part is missing" in editor.hear("missing")
        editor.nvim.command("close")
        place = {
            "uri": path.as_uri(),
            "range": {"start": {"line": first, "character": 0}, "end": {"line": last, "character": 0}},
            "diagnostics": diagnostics,
        }
        assert json.loads(asked.read_text()) == {"command": "interline.translate", "arguments": [place, "rust"]}


FUNCTION = "def area(width, height):\n    return width * height\n"


def test_a_task_opens_the_text_that_it_has_written(editor):
    editor.open("$0" + FUNCTION)
    editor.interline("translate rust")
    written = until(lambda: editor.nvim.current.buffer.options["filetype"] == "rust" and editor.buffer())
    assert "fn area(" in written
    editor.nvim.command("close")
    assert editor.buffer() == FUNCTION.rstrip("\n")


def test_a_task_changes_the_buffer_and_undo_reverts_it(editor):
    editor.open("$0" + FUNCTION)
    editor.interline("document")
    documented = until(lambda: editor.buffer() != FUNCTION.rstrip("\n") and editor.buffer())
    first, comment, last = documented.split("\n")
    assert (first, last) == tuple(FUNCTION.splitlines())
    assert re.fullmatch(r'    """Return .*"""', comment)
    editor.nvim.command("undo")
    assert editor.buffer() == FUNCTION.rstrip("\n")


@pytest.mark.parametrize(
    ("task", "filetype", "pattern"),
    [
        ("explain", "markdown", r"\w+ \w+ \w+"),
        ("test", "python", r"from a import area\n\n\ndef test_area\(\):\n    assert area\("),
        ("generate a function that adds two numbers", "python", r"def "),
    ],
)
def test_a_task_answers_in_its_own_window(editor, task, filetype, pattern):
    editor.open("$0" + FUNCTION)
    editor.interline(task)
    until(lambda: not editor.nvim.current.buffer.name)
    assert editor.nvim.current.buffer.options["filetype"] == filetype
    assert re.search(pattern, editor.buffer())


def test_code_is_generated_from_the_comment_at_the_cursor(editor):
    comment = "import math\n\n# Returns the largest of three numbers."
    editor.open(comment + "$0\n")
    editor.interline("generate")
    until(lambda: editor.buffer() != comment)
    assert editor.buffer().startswith(comment + "\ndef ")
    editor.nvim.command("undo")
    assert editor.buffer() == comment


def test_code_is_fixed_from_its_diagnostics(editor):
    wrong = FUNCTION.replace("* height", "* heigth")
    editor.open(wrong.replace("    ", "    $0"))
    found = "{ lnum = 1, col = 19, message = \"undefined name 'heigth'\" }"
    editor.lua(f"vim.diagnostic.set(vim.api.nvim_create_namespace('test'), 0, {{ {found} }})")
    editor.interline("fix")
    until(lambda: editor.buffer() != wrong.rstrip("\n"))


@pytest.mark.parametrize("choice", ["Run them", None])
def test_programs_run_only_with_permission(editor, choice):
    problem = (EXAMPLES / "double.py").read_text()
    editor.open("$0" + problem, "double.py")
    # Answers the question in place of the user.
    editor.lua(
        """local choice = ...
        vim.ui.select = function(items, options, done)
          _G.asked = options.prompt
          for _, item in ipairs(items) do
            if item.title == choice then return done(item) end
          end
          done(nil)
        end""",
        choice,
    )
    editor.interline("solve")
    asked = until(lambda: editor.lua("return _G.asked"))
    assert "run programs that the model writes" in asked
    if choice:
        until(lambda: not editor.nvim.current.buffer.name, seconds=60)
        assert editor.buffer().startswith(problem.rstrip("\n"))
        assert "20 drawn" in editor.hear("clusters of")
    else:
        until(editor.idle)
        assert editor.buffer() == problem.rstrip("\n")
        assert "drawn" not in editor.heard()


def test_a_task_that_cannot_be_done_says_why(editor):
    editor.open("x = $01\n")
    editor.interline("translate Klingon")
    assert "known are Python" in editor.hear("Klingon")
    editor.interline("fix")
    assert "no diagnostics" in editor.hear("nothing is known to be wrong")


def test_nothing_is_loaded_before_the_first_file(version, tmp_path, env):
    """The plugin prints nothing at startup either, and does not start the server."""
    init = tmp_path / "init.lua"
    init.write_text(USE_PLUGIN)
    show = "lua for name in pairs(package.loaded) do if name:find('^interline') then print(name) end end"
    command = [nvim_binary(version), "--headless", "--clean", "-u", init, "+" + show, "+qa"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.stdout + ran.stderr == ""


def test_the_help_defines_all_tags_in_use(version, tmp_path):
    doc = tmp_path / "doc"
    doc.mkdir()
    (doc / "interline.txt").write_text((PLUGIN / "doc" / "interline.txt").read_text())
    command = [nvim_binary(version), "--headless", "--clean", f"+helptags {doc}", "+qa"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.stdout + ran.stderr == ""
    tags = {line.split("\t")[0] for line in (doc / "tags").read_text().splitlines()}
    sources = [path.read_text() for path in [*PLUGIN.rglob("*.lua"), PLUGIN / "doc" / "interline.txt"]]
    used = {tag for source in sources for tag in re.findall(r"\|(interline[\w.-]*)\|", source)}
    assert used and used <= tags

"""What goes wrong, and what the user is told of it."""

import os
import signal
import time

import pytest
from conftest import CLASS, scripted, until

AREA = CLASS + "    def area(self):\n        return $0\n"
PATIENCE = "{ restart = { 0, 0, 0 }, good_start = 60, answer = 0.1, stop = 0.1 }"
IMPATIENT = f"require('interline.server').patience = {PATIENCE}\n"


def type_into(editor, name="a.py"):
    """What a user does all the same."""
    editor.nvim.command(f"edit {editor.folder / name}")
    editor.keys("ix = 1<CR><Tab><C-]><M-Right><M-]><Esc>:let b:typed = 1<CR>")
    until(lambda: "typed" in editor.nvim.funcs.getbufvar("", ""))
    assert editor.buffer().startswith("x = 1\n")


@pytest.mark.parametrize("executable", [False, None])
def test_a_server_that_is_missing_or_not_executable_is_named_once(start, tmp_path, executable):
    server = tmp_path / "interline"
    if executable is False:
        server.write_text("")
    editor = start(INTERLINE_SERVER=str(server))
    type_into(editor)
    type_into(editor, "b.py")
    assert "cargo install" in editor.hear(f"{server} is missing or not executable")
    assert editor.heard().count("is missing") == 1
    editor.interline("status")
    until(lambda: editor.heard().count("is missing") == 2)
    editor.nvim.command("checkhealth interline")
    until(lambda: "is missing or not executable" in editor.buffer() and "ERROR" in editor.buffer())


def test_a_server_that_crashes_at_once_is_left_alone_after_some_tries(start):
    editor = start(IMPATIENT + scripted("crash"))
    type_into(editor)
    editor.hear("has ended 4 times, now with exit code 3, and is left alone")
    assert editor.heard().count("it starts again") == 3
    # Another file is no reason to try again.
    type_into(editor, "b.py")
    editor.interline("status")
    editor.hear("the server keeps ending with exit code 3")
    assert editor.heard().count("left alone") == 1


def test_a_server_that_is_killed_comes_back(start):
    editor = start(IMPATIENT)
    editor.open(AREA)
    ghost = editor.see_ghost()
    editor.keys("<Esc>")
    os.kill(editor.server_process(), signal.SIGKILL)
    editor.hear("the server ended with signal 9; it starts again")
    editor.ready()
    editor.keys("A")
    until(lambda: editor.ghost() == ghost)


def test_a_server_that_never_answers_is_reported_and_can_be_restarted(start):
    editor = start(IMPATIENT + scripted("silent"))
    type_into(editor)
    editor.hear("the server does not answer")
    editor.interline("status")
    until(lambda: editor.heard().count("the server does not answer") == 2)
    silent = editor.server_process()
    editor.interline("restart")
    until(lambda: not os.path.exists(f"/proc/{silent}"))
    until(lambda: editor.heard().count("the server does not answer") == 3)


def test_a_model_that_is_not_there_is_named_with_the_remedy(start):
    editor = start("vim.lsp.config('interline', { settings = { interline = { model = '/nowhere' } } })\n")
    type_into(editor)
    until(lambda: editor.status() and editor.status()["kind"] == "Error")
    assert "/nowhere" in editor.hear("Interline cannot complete")
    problem = editor.status()["message"]
    editor.lua("_G.heard = {}")
    editor.interline("status")
    editor.hear(problem)
    editor.nvim.command("checkhealth interline")
    until(lambda: "/nowhere" in editor.buffer() and "ERROR" in editor.buffer())


def test_a_file_of_5_megabytes_does_not_hold_up_the_keys(editor, capsys):
    lines = [f"value_{number} = compute({number}) + other_{number % 7}\n" for number in range(130_000)]
    text = "".join(lines)
    assert len(text) > 5_000_000
    path = editor.folder / "big.py"
    path.write_text(text)
    # What the editor itself does with such a file is not the question.
    editor.nvim.command("syntax off")
    editor.edit(path)
    editor.keys("60000Go")
    until(lambda: editor.mode() == "i")
    times = []
    for typed in range(1, 31):
        start = time.monotonic()
        editor.keys("x")
        until(lambda: editor.nvim.current.line == "x" * typed)
        times.append(time.monotonic() - start)
    until(editor.idle)
    assert editor.server_text() == editor.buffer() + "\n"
    editor.nvim.command("syntax on")
    with capsys.disabled():
        median, worst = sorted(times)[15] * 1000, max(times) * 1000
        print(f"\n{editor.version}: a key in 5 MB, median {median:.0f} ms, worst {worst:.0f} ms")
    # A tenth of a second is felt; a shared machine gets ten times as much.
    assert median < 1000


def test_a_file_that_is_only_to_be_read(editor):
    path = editor.folder / "a.py"
    path.write_text(AREA.replace("$0", ""))
    path.chmod(0o444)
    editor.edit(path)
    assert editor.nvim.current.buffer.options["readonly"]
    editor.keys("GA")
    until(lambda: editor.mode() == "i")
    base, ghost = editor.buffer(), editor.see_ghost()
    editor.keys("<Tab>")
    editor.see_buffer(base + ghost)


@pytest.mark.parametrize("virtual", ["enew | setfiletype python", "edit fugitive:///a/.git//0/a.py",
                                     "new | set buftype=nofile | setfiletype python"])
def test_what_is_no_file_is_left_alone(editor, virtual):
    editor.edit(editor.folder / "a.py")
    editor.nvim.command(virtual)
    assert editor.nvim.current.buffer.options["filetype"] == "python"
    editor.keys("idef f():<CR><Tab><C-]><M-]>")
    until(lambda: editor.buffer().startswith("def f():\n"))
    # A file opened later is attached; were these to be, they would be by then.
    buffer = editor.nvim.current.buffer.number
    editor.keys("<Esc>")
    until(lambda: editor.mode() == "n")
    editor.nvim.command("set hidden")
    editor.edit(editor.folder / "b.py")
    assert editor.lua("return vim.lsp.get_clients({ bufnr = ... })", buffer) == []


def test_two_editors_on_one_folder(start, tmp_path):
    editors = [start(), start()]
    for editor in editors:
        editor.folder = tmp_path
        editor.open(AREA)
    ghosts = [editor.see_ghost() for editor in editors]
    for editor, ghost in zip(editors, ghosts):
        editor.keys("<Tab>")
        editor.see_buffer(AREA.replace("$0\n", ghost))
    first, second = (editor.server_process() for editor in editors)
    assert first != second

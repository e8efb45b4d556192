"""What can go wrong, and what the user is told."""

import os
import signal
import time

import pytest
from conftest import CLASS, scripted, until

AREA = CLASS + "    def area(self):\n        return $0\n"
PATIENCE = "{ restart = { 0, 0, 0 }, good_start = 60, answer = 0.1, stop = 0.1 }"
IMPATIENT = f"require('interline.server').patience = {PATIENCE}\n"


def type_into(editor, name="a.py"):
    """Types as a user would, without any ghost text."""
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


def test_a_server_that_crashes_at_once_is_given_up_after_some_restarts(start):
    editor = start(IMPATIENT + scripted("crash"))
    type_into(editor)
    editor.hear("has stopped 4 times, most recently with exit code 3, and will not be restarted")
    assert editor.heard().count("it will restart") == 3
    # Opening another file does not start it again.
    type_into(editor, "b.py")
    editor.interline("status")
    editor.hear("the server keeps stopping with exit code 3")
    assert editor.heard().count("will not be restarted") == 1


def test_a_killed_server_is_restarted(start):
    editor = start(IMPATIENT)
    editor.open(AREA)
    ghost = editor.see_ghost()
    editor.keys("<Esc>")
    os.kill(editor.server_process(), signal.SIGKILL)
    editor.hear("the server stopped with signal 9; it will restart")
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


def test_a_missing_model_is_reported_with_its_folder(start):
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


def test_a_file_of_5_megabytes_does_not_delay_typing(editor, capsys):
    lines = [f"value_{number} = compute({number}) + other_{number % 7}\n" for number in range(130_000)]
    text = "".join(lines)
    assert len(text) > 5_000_000
    path = editor.folder / "big.py"
    path.write_text(text)
    # The editor's own work on such a file is not the subject here.
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
    # People notice a tenth of a second; on a shared machine, allow ten times as much.
    assert median < 1000


def test_ghost_text_is_accepted_in_a_read_only_file(editor):
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
def test_buffers_that_are_not_files_are_left_alone(editor, virtual):
    editor.edit(editor.folder / "a.py")
    editor.nvim.command(virtual)
    assert editor.nvim.current.buffer.options["filetype"] == "python"
    editor.keys("idef f():<CR><Tab><C-]><M-]>")
    until(lambda: editor.buffer().startswith("def f():\n"))
    # A file that is opened later is attached by now, so these buffers would be attached too.
    buffer = editor.nvim.current.buffer.number
    editor.keys("<Esc>")
    until(lambda: editor.mode() == "n")
    editor.nvim.command("set hidden")
    editor.edit(editor.folder / "b.py")
    assert editor.lua("return vim.lsp.get_clients({ bufnr = ... })", buffer) == []


def test_two_editors_in_the_same_folder_run_two_servers(start, tmp_path):
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

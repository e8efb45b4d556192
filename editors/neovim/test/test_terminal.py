"""Neovim in a terminal, as people use it."""

import os
import re
import subprocess

import pytest
from conftest import CLASS, USE_PLUGIN, nvim_binary, until


@pytest.fixture
def terminal():
    """Runs tmux commands on a separate tmux server."""
    socket = f"interline-{os.getpid()}"

    def tmux(*arguments):
        command = ["tmux", "-L", socket, "-f", "/dev/null", *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    yield tmux
    # The tmux server exits with its last window, so it may be gone already.
    subprocess.run(["tmux", "-L", socket, "kill-server"], check=False, capture_output=True)


def test_ghost_text_is_shown_accepted_and_saved(version, tmp_path, env, terminal):
    path, init = tmp_path / "a.py", tmp_path / "init.lua"
    path.write_text(CLASS + "    def area(self):\n")
    init.write_text(USE_PLUGIN + "vim.o.statusline = [[%{v:lua.require'interline'.status()}]]\n")
    settings = [f"{name}={value}" for name, value in env.items()]
    terminal("new-session", "-d", "-x", 100, "-y", 30, "env", *settings, nvim_binary(version), "--clean", "-n", "-u",
             init, path)

    def screen():
        return terminal("capture-pane", "-p").splitlines()

    until(lambda: screen()[-2].strip() == "Interline")
    terminal("send-keys", "G", "o")
    terminal("send-keys", "-l", "return ")
    shown = until(lambda: next((line for line in screen() if re.search(r"return \S", line)), None))
    terminal("send-keys", "Tab", "Escape")
    terminal("send-keys", "-l", ":wq")
    terminal("send-keys", "Enter")
    until(lambda: path.read_text() == CLASS + f"    def area(self):\n{shown}\n")

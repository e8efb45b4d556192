"""Neovim with the plugin, the real server and the real model, driven by key presses as a user would."""

import os
import pathlib
import subprocess
import sys
import time

import pynvim
import pytest

ROOT = pathlib.Path(__file__).parents[3]
PLUGIN = ROOT / "editors" / "neovim"
SERVER = ROOT / "target" / "release" / "interline"
EXAMPLES = ROOT / "examples"
SCRIPTED = pathlib.Path(__file__).with_name("scripted_server.py")
CLASS = """\
class Rectangle:
    def __init__(self, width, height):
        self.width = width
        self.height = height

"""
USE_PLUGIN = f"vim.opt.runtimepath:prepend('{PLUGIN}')\n"


def scripted(*arguments):
    """A configuration with the scripted server instead of the real one."""
    cmd = ", ".join(f"'{argument}'" for argument in (sys.executable, SCRIPTED, *arguments))
    return f"vim.lsp.config('interline', {{ cmd = {{ {cmd} }} }})\n"


def nvim_binary(version):
    return ROOT / f"target/neovim-{version}" / "bin" / "nvim"


def until(found, seconds=20):
    """Waits until `found` returns something truthy, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        value = found()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds} s, and the last value was {value!r}"
        time.sleep(0.01)


class Editor:
    """One Neovim. `nvim` is the connection to it; the methods are what a user does and sees."""

    NAMESPACE = "interline"

    def __init__(self, version, folder, env, setup="", plugin=USE_PLUGIN):
        self.version, self.folder = version, folder
        # Messages are collected: shown on the screen, a long one would wait for a key.
        hear = "_G.heard = {}; vim.notify = function(text) table.insert(_G.heard, text) end; "
        hear += "vim.api.nvim_echo = function(parts) table.insert(_G.heard, parts[1][1]) end\n"
        init = folder / "init.lua"
        init.write_text(hear + plugin + setup)
        os.environ.update(env)
        argv = [nvim_binary(version), "--embed", "--clean", "-n", "-u", init]
        self.nvim = pynvim.attach("child", argv=[str(argument) for argument in argv])
        self.nvim.ui_attach(100, 30)

    def lua(self, code, *args):
        return self.nvim.exec_lua(code, *args)

    def keys(self, keys):
        self.nvim.input(keys)

    def edit(self, path):
        """Opens a file and waits until the model is ready."""
        self.nvim.command(f"edit {path}")
        self.ready()

    def ready(self):
        until(lambda: self.status() and not self.status()["busy"])
        until(lambda: self.lua("return require('interline.server').client(0) ~= nil"))

    def status(self):
        return self.lua("return require('interline.server').status()")

    def heard(self):
        return "\n".join(self.lua("return _G.heard"))

    def hear(self, part):
        """Waits for a message to the user."""
        try:
            until(lambda: part in self.heard())
        except AssertionError:
            assert part in self.heard()
        return self.heard()

    def interline(self, arguments):
        self.nvim.command(f"Interline {arguments}")

    def open(self, text, name="a.py"):
        """Opens a file with this text and the cursor, in insert mode, at `$0`."""
        path = self.folder / name
        before = text.split("$0")[0]
        path.write_bytes(text.replace("$0", "", 1).encode())
        self.edit(path)
        line = before.rsplit("\n", 1)[-1]
        self.nvim.api.win_set_cursor(0, (before.count("\n") + 1, max(len(line.encode()) - 1, 0)))
        self.keys("a" if line else "i")
        until(lambda: self.mode() == "i")
        return path

    def mode(self):
        return self.nvim.api.get_mode()["mode"]

    def extmarks(self, buffer=0):
        namespace = self.nvim.api.create_namespace(self.NAMESPACE)
        return self.nvim.api.buf_get_extmarks(buffer, namespace, 0, -1, {"details": True})

    def ghost(self):
        """The ghost text as drawn, without the number of the candidate."""
        marks = self.extmarks()
        if not marks:
            return ""
        assert len(marks) == 1
        _, row, col, details = marks[0]
        assert details["virt_text_pos"] == "inline"
        assert [row + 1, col] == self.nvim.api.win_get_cursor(0), "ghost text must be at the cursor"
        lines = ["".join(text for text, group in details["virt_text"] if group == "InterlineGhost")]
        lines += ["".join(text for text, _ in line) for line in details.get("virt_lines", [])]
        return "\n".join(lines)

    def see_ghost(self):
        """Waits until the newest request is answered and ghost text is shown."""
        until(lambda: self.idle() and self.ghost())
        return self.ghost()

    def idle(self):
        """Whether all requests have been answered."""
        return self.lua("return next(require('interline.server').client(0).requests) == nil")

    def buffer(self):
        return "\n".join(self.nvim.current.buffer[:])

    def see_buffer(self, text):
        try:
            until(lambda: self.buffer() == text, seconds=10)
        except AssertionError:
            assert self.buffer() == text

    def see_typed(self, text):
        """Waits until the text before the cursor ends with `text`."""
        def before():
            col = self.nvim.api.win_get_cursor(0)[1]
            return self.nvim.current.line.encode()[:col].decode()
        until(lambda: before().endswith(text), seconds=10)

    def server_text(self):
        """The server's text of the current buffer."""
        return self.lua("""
            local client = require('interline.server').client(0)
            local params = { command = 'interline.documentText', arguments = { vim.uri_from_bufnr(0) } }
            return client:request_sync('workspace/executeCommand', params, 10000, vim.api.nvim_get_current_buf()).result
        """)

    def server_process(self):
        """The process id of the server."""
        return int(subprocess.check_output(["pgrep", "-P", str(self.nvim.funcs.getpid())]).split()[0])

    def check_errors(self):
        """Fails if any error was shown, such as an error in Lua."""
        messages = self.nvim.funcs.execute("messages")
        assert "rror" not in messages, messages

    def clean(self):
        """Returns to an empty editor. The server keeps running."""
        self.keys("<C-\\><C-n>")
        until(lambda: self.mode() == "n")
        self.check_errors()
        self.nvim.command("silent! tabonly | silent! only | %bwipeout! | messages clear")
        self.lua("_G.heard = {}")

    def close(self):
        try:
            self.nvim.command("qall!")
        except (OSError, EOFError):
            pass
        self.nvim.close()


@pytest.fixture(scope="session", params=["0.12", "0.11"])
def version(request):
    return request.param


@pytest.fixture(scope="session")
def env(tmp_path_factory):
    """Hides the machine's own configuration and models. The runtime's cache is shared, so that it is downloaded once."""
    home = tmp_path_factory.mktemp("home")
    folders = {f"XDG_{name}_HOME": str(home / name) for name in ("CONFIG", "STATE", "DATA")}
    return folders | {"INTERLINE_MODELS_DIR": str(home / "models"), "INTERLINE_SERVER": str(SERVER)}


@pytest.fixture(scope="session")
def shared(version, tmp_path_factory, env):
    """One editor for many tests, because every start of the server loads the model."""
    editor = Editor(version, tmp_path_factory.mktemp("shared"), env)
    yield editor
    editor.close()


@pytest.fixture
def editor(shared, tmp_path):
    shared.folder = tmp_path
    yield shared
    shared.clean()


@pytest.fixture
def start(version, tmp_path, env):
    """Starts editors for one test, and closes them afterwards."""
    editors = []

    def start(setup="", **more):
        folder = tmp_path / f"editor{len(editors)}"
        folder.mkdir()
        editors.append(Editor(version, folder, env | more, setup))
        return editors[-1]

    yield start
    for editor in editors:
        editor.check_errors()
        editor.close()

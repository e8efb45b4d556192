"""A Neovim with the plugin, the real server and the real model, driven by keys as a user drives it."""

import os
import pathlib
import time

import pynvim
import pytest

ROOT = pathlib.Path(__file__).parents[3]
PLUGIN = ROOT / "editors" / "neovim"
SERVER = ROOT / "target" / "release" / "interline"
EXAMPLES = ROOT / "examples"


def nvim_binary(version):
    return ROOT / f"target/neovim-{version}" / "bin" / "nvim"


def until(found, seconds=60):
    """Waits until `found` answers something true, and answers it."""
    deadline = time.monotonic() + seconds
    while True:
        value = found()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds} s in vain, the last answer was {value!r}"
        time.sleep(0.01)


class Editor:
    """One Neovim. `nvim` is its connection; the methods say what a user does and sees."""

    def __init__(self, version, folder, env, setup=""):
        self.version, self.folder = version, folder
        # Messages would wait for a key where they take more than a line.
        hear = "_G.heard = {}; vim.notify = function(text) table.insert(_G.heard, text) end; "
        hear += "vim.api.nvim_echo = function(parts) table.insert(_G.heard, parts[1][1]) end; "
        init = folder / "init.lua"
        init.write_text(f"{hear}vim.opt.runtimepath:prepend('{PLUGIN}')\n{setup}")
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
        until(lambda: (self.status() or {}).get("message", "").endswith("is ready"))
        until(lambda: self.lua("return require('interline.server').client(0) ~= nil"))

    def status(self):
        return self.lua("return require('interline.server').status()")

    def heard(self):
        return "\n".join(self.lua("return _G.heard"))

    def hear(self, part):
        """Waits for a message to the user."""
        until(lambda: part in self.heard())
        return self.heard()

    def interline(self, arguments):
        self.nvim.command(f"Interline {arguments}")

    def open(self, text, name="a.py", binary=False):
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

    def extmarks(self):
        namespace = self.lua("return vim.api.nvim_create_namespace('interline')")
        return self.nvim.api.buf_get_extmarks(0, namespace, 0, -1, {"details": True})

    def ghost(self):
        """The ghost text as it is drawn, without the count of candidates."""
        marks = self.extmarks()
        if not marks:
            return ""
        assert len(marks) == 1
        _, row, col, details = marks[0]
        assert details["virt_text_pos"] == "inline"
        assert [row + 1, col] == self.nvim.api.win_get_cursor(0), "it stands at the cursor"
        lines = ["".join(text for text, group in details["virt_text"] if group == "InterlineGhost")]
        lines += ["".join(text for text, _ in line) for line in details.get("virt_lines", [])]
        return "\n".join(lines)

    def see_ghost(self):
        """Waits until the newest request is answered and ghost text is shown."""
        until(lambda: self.idle() and self.ghost())
        return self.ghost()

    def idle(self):
        """Whether no request is open."""
        return self.lua("return next(require('interline.server').client(0).requests) == nil")

    def buffer(self):
        return "\n".join(self.nvim.current.buffer[:])

    def see_buffer(self, text):
        try:
            until(lambda: self.buffer() == text, seconds=10)
        except AssertionError:
            assert self.buffer() == text

    def see_typed(self, text):
        """Waits until the text before the cursor ends so."""
        def before():
            col = self.nvim.api.win_get_cursor(0)[1]
            return self.nvim.current.line.encode()[:col].decode()
        until(lambda: before().endswith(text), seconds=10)

    def server_text(self):
        """The server's text of the current buffer."""
        return self.lua("""
            local client = require('interline.server').client(0)
            local params = { command = 'interline.documentText', arguments = { vim.uri_from_bufnr(0) } }
            return client:request_sync('workspace/executeCommand', params, 10000, 0).result
        """)

    def close(self):
        try:
            self.nvim.command("qall!")
        except OSError:
            pass


@pytest.fixture(params=["0.12", "0.11"])
def version(request):
    return request.param


@pytest.fixture
def env(tmp_path):
    """Nothing of the machine's own configuration; the runtime's cache is shared, to fetch it once."""
    home = {name: str(tmp_path / name.lower()) for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")}
    return home | {"INTERLINE_SERVER": str(SERVER), "NVIM_APPNAME": "nvim"}


@pytest.fixture
def start(version, tmp_path, env):
    """Starts editors, and ends them."""
    editors = []

    def start(setup="", **more):
        folder = tmp_path / f"project{len(editors)}"
        folder.mkdir()
        editors.append(Editor(version, folder, env | more, setup))
        return editors[-1]

    yield start
    for editor in editors:
        editor.close()


@pytest.fixture
def editor(start):
    return start()

"""Emacs and Vim in a terminal, with the real server and model, driven by key presses as a user would."""

import base64
import json
import os
import pathlib
import re
import socket
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SERVER = ROOT / "target" / "release"

# The completion must not depend on how busy the machine is.
TIME_LIMIT_MS = 10_000


def until(found, seconds=30):
    """Waits until `found` returns something truthy, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        value = found()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds} s, and the last value was {value!r}"
        time.sleep(0.02)


class Editor:
    """A program in its own tmux. A user's actions are keys, and the result is on the screen."""

    def __init__(self, folder):
        self.folder = folder
        self.socket = folder / "tmux"
        self.env = os.environ | {"HOME": str(folder), "PATH": f"{SERVER}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}

    def tmux(self, *arguments):
        command = ["tmux", "-u", "-f", "/dev/null", "-S", self.socket, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=self.env).stdout

    def run(self, *argv):
        self.tmux("new-session", "-d", "-x", "100", "-y", "30", *map(str, argv))

    def keys(self, *keys):
        self.tmux("send-keys", *keys)

    def type(self, text):
        self.tmux("send-keys", "-l", text)

    def screen(self):
        return self.tmux("capture-pane", "-p")

    def see(self, text):
        """Waits until the text is on the screen."""
        try:
            until(lambda: text in self.screen())
        except AssertionError:
            raise AssertionError(f"no {text!r} on the screen:\n{self.screen()}") from None

    def close(self):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], capture_output=True)

    def open(self, text, typed):
        """Opens a file with this text and the cursor at `$0`, and types once the model is ready."""
        self.path = self.folder / "a.py"
        self.path.write_bytes(text.replace("$0", "", 1).encode())
        before, after = text.replace("\r", "").split("$0")
        self.row, self.line, self.after = before.count("\n"), before.split("\n")[-1], after.split("\n")[0]
        self.edit()
        until(lambda: self.items() is not None)
        self.type(typed)
        self.row += typed.count("\n")
        self.line = (self.line + typed).split("\n")[-1]

    def items(self):
        """The server's items at the cursor; `None` while the model is loading."""
        document = {"uri": self.path.as_uri()}
        place = {"line": self.row, "character": self.units(self.line)}
        answer = self.ask("textDocument/completion", {"textDocument": document, "position": place})
        return answer and answer["items"]

    def offer(self):
        """Waits until the editor offers the server's item at the cursor, and returns that item."""
        # Wait for the screen first: a request from here would cancel the editor's own.
        until(lambda: self.offered() and self.line.strip() in self.screen())
        item = until(self.items)[0]
        until(lambda: self.offered() == self.offer_of(item))
        self.see(self.offered())
        return item

    def taken(self, item):
        """The cursor's line after the item's edit, which may have added more lines."""
        edit = item["textEdit"]
        start, end = (edit["range"][edge]["character"] for edge in ("start", "end"))
        assert end == self.units(self.line), "the edit must end at the cursor"
        kept = next(at for at in range(len(self.line) + 1) if self.units(self.line[:at]) == start)
        return self.line[:kept] + edit["newText"] + self.after

    def server_text(self):
        """The server's text of the file."""
        params = {"command": "interline.documentText", "arguments": [self.path.as_uri()]}
        return self.ask("workspace/executeCommand", params)

    def saved(self, text):
        """Waits until the file holds the text."""
        def on_disk():
            return self.path.read_bytes().decode()
        try:
            until(lambda: on_disk() == text, seconds=10)
        except AssertionError:
            assert on_disk() == text, self.screen()


class Emacs(Editor):
    def __init__(self, folder, encodings=""):
        super().__init__(folder)
        self.encodings = encodings

    def edit(self):
        socket = self.folder / "emacs"
        setup = f"""(progn (setq native-comp-jit-compilation nil server-name {quote(socket)}
                interline-options '(:timeLimitMs {TIME_LIMIT_MS}))
            (load {quote(ROOT / "editors/emacs/interline.el")})
            {self.encodings} (server-start))"""
        self.run("emacs", "-nw", "-Q", "--eval", setup, self.path)
        until(socket.exists)
        self.lisp(f"(progn (forward-line {self.row}) (forward-char {len(self.line)}) t)")

    def units(self, text):
        return len(text) if "utf-32" in self.encodings else len(text.encode())

    def lisp(self, code):
        code = f"""(with-current-buffer (window-buffer)
            (base64-encode-string (json-serialize {code} :null-object nil :false-object :json-false) t))"""
        command = ["emacsclient", "--socket-name", self.folder / "emacs", "--eval", code]
        answer = subprocess.run(command, check=True, capture_output=True, text=True, env=self.env, timeout=30).stdout
        return json.loads(base64.b64decode(answer))

    def ask(self, method, params):
        until(lambda: self.lisp("(if (eglot-managed-p) t :json-false)"))
        # A synchronous request would make Emacs wait in the middle of its work, perhaps for another answer.
        self.lisp(f"""(progn (setq test-answer nil) (jsonrpc-async-request
            (eglot-current-server) :{method} (json-parse-string {quote(json.dumps(params))} :object-type 'plist)
            :success-fn (lambda (result) (setq test-answer (list :result result)))) nil)""")
        return until(lambda: self.lisp("test-answer"))["result"]

    def offered(self):
        """The ghost text."""
        ghost = "(and completion-preview--overlay (overlay-get completion-preview--overlay 'after-string))"
        return self.lisp(f"(if {ghost} (substring-no-properties {ghost}))")

    def offer_of(self, item):
        edit = item["textEdit"]["range"]
        return item["label"][edit["end"]["character"] - edit["start"]["character"]:]

    def take(self):
        self.keys("Tab")

    def save(self):
        self.keys("C-x", "C-s")


class Vim(Editor):
    def edit(self):
        listener = socket.create_server(("127.0.0.1", 0))
        config = ROOT / "editors" / "vim" / "interline.vim"
        vimrc = self.folder / "vimrc"
        options = f"let g:ale_interline_options = {{'timeLimitMs': {TIME_LIMIT_MS}}}"
        vimrc.write_text(f"source $VIMRUNTIME/defaults.vim\n{options}\nsource {config}\n")
        connect = f"let g:test = ch_open('127.0.0.1:{listener.getsockname()[1]}')"
        self.run("vim", "-n", "-i", "NONE", "-u", vimrc, self.path, "-c", connect)
        self.channel = listener.accept()[0].makefile("rw")
        self.vim(f"cursor({self.row + 1}, {len(self.line.encode())})")
        self.keys("a" if self.line else "i")

    def type(self, text):
        # Vim indents automatically.
        super().type(re.sub(r"\n +", "\n", text))

    def units(self, text):
        return len(text.encode("utf-16-le")) // 2

    def vim(self, expression):
        print(json.dumps(["expr", expression, -1]), file=self.channel, flush=True)
        return json.JSONDecoder().raw_decode(self.channel.readline())[0][1]

    def ask(self, method, params):
        message = json.dumps([0, method, params])
        send = f"ale#lsp_linter#SendRequest(bufnr(''), 'interline', json_decode({quote_vim(message)}), {{answer -> extend(g:, {{'answer': answer}})}})"
        self.vim(f"extend(g:, {{'answer': {{}}}})")
        self.vim(send)
        return until(lambda: self.vim("g:answer"))["result"]

    def offered(self):
        """The first row of the menu."""
        return self.vim("pumvisible() ? complete_info(['items']).items[0].word : ''")

    def offer_of(self, item):
        return item["label"].split("(")[0]

    def take(self):
        self.keys("C-n", "C-y")

    def save(self):
        self.keys("Escape", ":w", "Enter")


def quote(value):
    return json.dumps(str(value), ensure_ascii=False)


def quote_vim(text):
    return "'" + text.replace("'", "''") + "'"


@pytest.fixture
def start(tmp_path):
    editors = []
    def start(kind, *arguments):
        editors.append(kind(tmp_path, *arguments))
        return editors[-1]
    yield start
    for editor in editors:
        editor.close()

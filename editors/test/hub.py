"""A Hub on loopback with two repositories, for the tests of all editors. Prints its address.

`owner/tiny` has `Tiny.gguf`. `owner/slow` has `Slow.gguf`, of which the first request gets one half
and then hardly more, until the client is gone. A request for the rest is answered.
"""

import hashlib
import http.server
import json
import re
import time

from tiny_gguf import gguf

CONTENT = gguf()
FILES = {"tiny": "Tiny.gguf", "slow": "Slow.gguf"}


class Handler(http.server.BaseHTTPRequestHandler):
    def handle(self):
        try:
            super().handle()
        except ConnectionError:
            pass

    def do_GET(self):
        listed = re.fullmatch(r"/api/models/owner/(\w+)/revision/main\?blobs=true", self.path)
        file = re.fullmatch(r"/owner/(\w+)/resolve/c0ffee/(\w+\.gguf)", self.path)
        if listed and listed[1] in FILES:
            lfs = {"size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
            siblings = [{"rfilename": FILES[listed[1]], "lfs": lfs}]
            self.answer(200, json.dumps({"sha": "c0ffee", "siblings": siblings}).encode())
        elif file and FILES.get(file[1]) == file[2]:
            self.send_file(file[1] == "slow")
        else:
            self.answer(404, b"")

    def send_file(self, slow):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked:
            start = int(asked[1])
            span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
            self.answer(206, CONTENT[start:], ("Content-Range", span))
            return
        if not slow:
            self.answer(200, CONTENT)
            return
        half = len(CONTENT) // 2
        self.answer(200, CONTENT, sent=half)
        for byte in CONTENT[half:]:
            time.sleep(0.05)
            # Fails once the client is gone.
            self.wfile.write(bytes([byte]))

    def answer(self, status, body, *headers, sent=None):
        self.send_response(status)
        for name, value in [("Content-Length", str(len(body))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:sent])

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()

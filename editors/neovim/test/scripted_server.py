"""A language server that does one thing: `silent`, `crash`, or `translate FILE`.

With `translate`, it announces that task and writes the requests for it to FILE.
"""

import json
import sys


def messages():
    while header := sys.stdin.buffer.readline():
        length = int(header.split(b":")[1])
        sys.stdin.buffer.readline()
        yield json.loads(sys.stdin.buffer.read(length))


def answer(message, result):
    body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
    sys.stdout.buffer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    sys.stdout.buffer.flush()


if sys.argv[1] == "crash":
    sys.exit(3)
for message in messages():
    if sys.argv[1] == "silent" or "id" not in message:
        continue
    if message["method"] == "initialize":
        commands = ["interline.why", "interline.accept", "interline.documentText", "interline.translate"]
        answer(message, {"capabilities": {"executeCommandProvider": {"commands": commands}}})
    elif message["method"] == "workspace/executeCommand":
        with open(sys.argv[2], "w") as file:
            json.dump(message["params"], file)
        answer(message, {"text": "translated\n", "languageId": "rust", "complete": False, "notes": ["a part is missing"]})
    else:
        answer(message, None)

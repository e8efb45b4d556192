"""The server as an independent client sees it: pytest-lsp, over standard input and output."""

import asyncio
import os
import pathlib

import pytest_lsp
from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pytest_lsp import ClientServerConfig, LanguageClient, client_capabilities

ROOT = pathlib.Path(__file__).parents[2]
BINARY = os.environ.get("INTERLINE_BIN", str(ROOT / "target" / "debug" / "interline"))
REQUEST_CANCELLED = -32800

TEXT = """\
class Rectangle:
    def __init__(self, width, height):
        self.width = width
        self.height = height

    def area(self):
        return """
URI = "file:///project/shapes.py"


# The model that comes with Interline, whichever one this user has chosen.
COMMAND = [BINARY, "--model", "smollm2-135m-fim"]


@pytest_lsp.fixture(config=ClientServerConfig(server_command=COMMAND, server_env=dict(os.environ)))
async def client(lsp_client: LanguageClient):
    lsp_client.statuses, lsp_client.told = [], asyncio.Event()

    @lsp_client.feature("didChangeStatus")
    def did_change_status(status):
        lsp_client.statuses.append(status)
        lsp_client.told.set()

    capabilities = client_capabilities("visual_studio_code")
    # None of pytest-lsp's client capabilities include inline completion.
    capabilities.text_document.inline_completion = types.InlineCompletionClientCapabilities()
    result = await lsp_client.initialize_session(types.InitializeParams(capabilities=capabilities))
    lsp_client.initialize_result = result
    await status(lsp_client, lambda status: status.message.endswith("is ready"))
    yield
    await lsp_client.shutdown_session()
    # The server stops on `exit`, although its standard input is still open.
    assert lsp_client._server.returncode == 0


async def status(client, wanted):
    """Waits until the last status satisfies `wanted`, and returns it."""
    async with asyncio.timeout(120):
        while not (client.statuses and wanted(client.statuses[-1])):
            assert client.statuses[-1:] == [] or client.statuses[-1].kind != "Error", client.statuses
            client.told.clear()
            await client.told.wait()
    return client.statuses[-1]


class Document:
    """An open document. Text is typed at its end."""

    def __init__(self, client, uri=URI, text=TEXT, language="python"):
        self.client, self.uri, self.text, self.version = client, uri, text, 1
        item = types.TextDocumentItem(uri=uri, language_id=language, version=1, text=text)
        client.text_document_did_open(types.DidOpenTextDocumentParams(text_document=item))

    def position(self):
        *lines, last = self.text.split("\n")
        return types.Position(line=len(lines), character=len(last))

    def type(self, text):
        end = self.position()
        self.version += 1
        self.text += text
        change = types.TextDocumentContentChangePartial(range=types.Range(end, end), text=text)
        document = types.VersionedTextDocumentIdentifier(uri=self.uri, version=self.version)
        self.client.text_document_did_change(
            types.DidChangeTextDocumentParams(text_document=document, content_changes=[change])
        )

    def ask(self, kind=types.InlineCompletionTriggerKind.Automatic):
        params = types.InlineCompletionParams(
            context=types.InlineCompletionContext(trigger_kind=kind),
            text_document=types.TextDocumentIdentifier(uri=self.uri),
            position=self.position(),
        )
        return self.client.text_document_inline_completion_async(params)

    def close(self):
        document = types.TextDocumentIdentifier(uri=self.uri)
        self.client.text_document_did_close(types.DidCloseTextDocumentParams(text_document=document))


async def why(client, count=1):
    """The records of the latest requests, newest first."""
    params = types.ExecuteCommandParams(command="interline.why", arguments=[count])
    return await client.workspace_execute_command_async(params)


async def test_the_server_announces_its_capabilities(client):
    capabilities = client.initialize_result.capabilities
    assert capabilities.inline_completion_provider is not None
    assert capabilities.completion_provider is not None
    assert capabilities.text_document_sync == types.TextDocumentSyncKind.Incremental
    assert client.initialize_result.server_info.name == "interline"


async def test_completes_while_typing(client):
    document = Document(client)
    for character in "self.wid":
        document.type(character)
        answer = await document.ask()
        assert answer is not None
    [item] = answer.items
    assert item.insert_text.startswith("        return self.width"), item.insert_text
    assert item.range == types.Range(types.Position(6, 0), document.position())
    [record] = await why(client)
    assert record["reused"] > 0 or "typed through" in record["message"], record


async def test_completes_in_the_menu(client):
    document = Document(client)
    document.type("self.wi")
    answer = await client.text_document_completion_async(
        types.CompletionParams(
            text_document=types.TextDocumentIdentifier(uri=document.uri),
            position=document.position(),
        )
    )
    [item] = answer.items
    assert answer.is_incomplete
    assert item.preselect
    assert item.text_edit.new_text.startswith("width"), item


async def test_a_cancelled_request_frees_the_model(client):
    document = Document(client, text=TEXT * 40)
    asked = document.ask(types.InlineCompletionTriggerKind.Invoked)
    task = asyncio.ensure_future(asked)
    await asyncio.sleep(0)
    [request] = client.protocol._request_futures
    client.cancel_request(types.CancelParams(id=request))
    try:
        await task
        raise AssertionError("a cancelled request was answered")
    except (JsonRpcException, asyncio.CancelledError) as error:
        assert getattr(error, "code", REQUEST_CANCELLED) == REQUEST_CANCELLED
    # The model is free at once, and the server keeps running.
    document.type("self.wid")
    assert (await document.ask()).items


async def test_only_the_last_request_of_a_burst_is_answered(client):
    document = Document(client, text=TEXT * 10)
    asked = []
    for character in "self.wid":
        document.type(character)
        asked.append(asyncio.ensure_future(document.ask()))
    *others, last = await asyncio.gather(*asked)
    assert last.items
    assert not any(other and other.items for other in others), others


async def test_events_are_recorded(client):
    document = Document(client)
    document.type("self.wid")
    [item] = (await document.ask()).items
    client.protocol.notify("textDocument/didShowCompletion", {"item": item})
    client.protocol.notify(
        "textDocument/didPartiallyAcceptCompletion", {"item": item, "acceptedLength": 25}
    )
    [record] = await why(client)
    assert record["message"].endswith("25 UTF-16 units taken"), record
    params = types.ExecuteCommandParams(
        command=item.command.command, arguments=item.command.arguments
    )
    await client.workspace_execute_command_async(params)
    [record] = await why(client)
    assert record["message"].endswith(", taken"), record


async def test_a_file_with_secrets_is_not_completed(client):
    document = Document(client, uri="file:///project/.env", text="PASSWORD=", language="dotenv")
    assert not (await document.ask()).items
    inactive = await status(client, lambda status: status.kind == "Inactive")
    assert ".env" in inactive.message
    [record] = await why(client)
    assert (record["reused"], record["computed"]) == (0, 0)


async def test_a_closed_document_gets_no_completions(client):
    document = Document(client)
    document.close()
    document.type("x")
    assert not (await document.ask()).items
    again = Document(client)
    again.type("self.wid")
    assert (await again.ask()).items

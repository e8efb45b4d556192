#!/usr/bin/env node
// A language server with one task, which returns the command and the arguments it was called with.

import { createMessageConnection, StreamMessageReader, StreamMessageWriter } from 'vscode-jsonrpc/node';

const connection = createMessageConnection(new StreamMessageReader(process.stdin), new StreamMessageWriter(process.stdout));
connection.onRequest('initialize', () => ({
  capabilities: {
    textDocumentSync: 1,
    executeCommandProvider: { commands: ['interline.why', 'interline.translate'] },
    experimental: { languages: ['rust'] },
  },
}));
connection.onRequest('workspace/executeCommand', ({ command, arguments: args }) => ({
  text: `${command} ${JSON.stringify(args)}`,
  languageId: 'plaintext',
  complete: true,
  notes: [],
}));
connection.onRequest('shutdown', () => null);
connection.onNotification('exit', () => process.exit(0));
connection.listen();

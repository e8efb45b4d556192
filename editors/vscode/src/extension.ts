/** Interline in VS Code: the server does the work, and the extension shows the results. */

import * as vscode from 'vscode';

import { register, reporting } from './commands';
import { Offer } from './offer';
import { DOCUMENTS, Server } from './server';
import { SERVER_PATH } from './settings';
import { Status } from './status';
import { SwitchedOff } from './switched_off';

let server: Server;

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  const log = vscode.window.createOutputChannel('Interline', { log: true });
  const status = new Status();
  const files = new SwitchedOff(context.workspaceState, () => look());
  server = new Server(context.extension, log, status, (document) => files.has(document));
  const offer = new Offer(context.globalState, server);

  /** Shows the status for the active document. */
  const look = () => {
    const document = vscode.window.activeTextEditor?.document;
    if (document?.uri.scheme === 'output') {
      // The output panel is not a file: keep the status of the file next to it.
      return;
    }
    status.switchOff(
      document && vscode.languages.match(DOCUMENTS as vscode.DocumentSelector, document) === 0
        ? 'this is not a file'
        : document && files.has(document)
          ? 'switched off in this file'
          : undefined,
    );
    void server.focus(document);
  };

  context.subscriptions.push(
    log,
    status,
    ...register(server, files, log),
    server.onShown((line) => offer.shown(line)),
    vscode.workspace.onDidSaveTextDocument(() => reporting(() => offer.pause())),
    vscode.window.onDidChangeActiveTextEditor(look),
    vscode.workspace.onDidChangeConfiguration(async (event) => {
      if (event.affectsConfiguration(`interline.${SERVER_PATH}`)) {
        await server.restart();
      } else if (event.affectsConfiguration('interline')) {
        await server.configure();
        look();
      }
    }),
  );
  look();
  // Not awaited, so that the editor does not wait for the server.
  void server.restart();
}

export async function deactivate(): Promise<void> {
  await server.stop();
}

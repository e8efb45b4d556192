/** The commands in the palette, and the menu of the status bar item. */

import * as vscode from 'vscode';

import { chooseModel } from './models';
import type { Server } from './server';
import { change } from './settings';
import type { Record } from './status';
import type { SwitchedOff } from './switched_off';

/** Registers the commands. Each one asks for the input it needs and reports its errors. */
export function register(server: Server, files: SwitchedOff, log: vscode.LogOutputChannel): vscode.Disposable[] {
  const commands: { [name: string]: () => Promise<void> | void } = {
    menu,
    showWhy: () => showWhy(server),
    toggleFile: () => withEditor((editor) => files.toggle(editor.document)),
    toggleLanguage: () => withEditor((editor) => toggleLanguage(editor.document.languageId)),
    toggleEverywhere: () => change<boolean>('enabled', (enabled) => !enabled),
    chooseModel: () => chooseModel(server),
    runTask: () => withEditor((editor) => runTask(server, editor)),
    restart: () => server.restart(),
    showLog: () => log.show(),
  };
  return Object.entries(commands).map(([name, run]) =>
    vscode.commands.registerCommand(`interline.${name}`, () => reporting(run)),
  );
}

/** Shows the error of what runs, if there is one. */
export async function reporting(run: () => Promise<void> | void): Promise<void> {
  try {
    await run();
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    void vscode.window.showErrorMessage(`Interline: ${problem}`);
  }
}

function withEditor(use: (editor: vscode.TextEditor) => Promise<void>): Promise<void> {
  const editor = vscode.window.activeTextEditor;
  if (!editor) {
    throw new Error('no file is open');
  }
  return use(editor);
}

async function menu(): Promise<void> {
  const entries = [
    ['$(question) Why was nothing suggested?', 'interline.showWhy'],
    ['$(file) Enable or disable in this file', 'interline.toggleFile'],
    ['$(code) Enable or disable for this language', 'interline.toggleLanguage'],
    ['$(globe) Enable or disable everywhere', 'interline.toggleEverywhere'],
    ['$(database) Models…', 'interline.chooseModel'],
    ['$(refresh) Restart server', 'interline.restart'],
    ['$(output) Show log', 'interline.showLog'],
  ] as const;
  const items = entries.map(([label, command]) => ({ label, command }));
  const chosen = await vscode.window.showQuickPick(items, { title: 'Interline' });
  if (chosen) {
    await vscode.commands.executeCommand(chosen.command);
  }
}

async function showWhy(server: Server): Promise<void> {
  const records = await server.records(20);
  if (records.length === 0) {
    throw new Error('nothing has been requested yet');
  }
  const item = ({ message }: Record) => {
    const cost = message.lastIndexOf(' (');
    return { label: message.slice(0, cost), detail: message.slice(cost + 1) };
  };
  await vscode.window.showQuickPick(records.map(item), {
    title: 'Interline: the latest requests, newest first',
    matchOnDetail: true,
  });
}

async function toggleLanguage(language: string): Promise<void> {
  await change<string[]>('disabledLanguages', (now = []) =>
    now.includes(language) ? now.filter((other) => other !== language) : [...now, language],
  );
}

async function runTask(server: Server, editor: vscode.TextEditor): Promise<void> {
  const chosen = await vscode.window.showQuickPick(
    server.tasks().map((command) => ({ label: command.replace(/^interline\./, ''), command })),
    { title: 'Interline: run a task' },
  );
  if (!chosen) {
    return;
  }
  const words = await wordsFor(chosen.label, server);
  if (words) {
    // The language client has registered this command. Its middleware shows the result, as for code actions.
    await vscode.commands.executeCommand(chosen.command, server.place(editor), ...words);
  }
}

/** The further arguments of a task; `undefined` if the user cancels. */
async function wordsFor(task: string, server: Server): Promise<string[] | undefined> {
  switch (task) {
    case 'translate': {
      const language = await vscode.window.showQuickPick(server.languages(), { title: 'Interline: translate to' });
      return language === undefined ? undefined : [language];
    }
    case 'generate': {
      const prompt = await vscode.window.showInputBox({
        title: 'Interline: what to generate',
        placeHolder: 'Leave empty to write what the comment at the cursor says',
      });
      return prompt === undefined ? undefined : prompt ? [prompt] : [];
    }
    default:
      return [];
  }
}

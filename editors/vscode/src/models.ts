/** The models: a list to choose from, pulling one, and switching to it. */

import * as vscode from 'vscode';
import { LSPErrorCodes, ResponseError } from 'vscode-languageclient/node';

import type { Server } from './server';
import { change, setting } from './settings';

/** An element of the answer to `interline.models`. */
export interface Model {
  name: string;
  about: string;
  license: string;
  /** Of its file, or of its folder if it is here. */
  sizeBytes: number;
  /** What it needs to run, if that is known. */
  memoryBytes: number | null;
  /** What it scores, in words. */
  score: string | null;
  here: boolean;
  inUse: boolean;
  recommended: boolean;
}

/** The models that the server knows, beginning with the one that comes with it, and those that the user has. */
export async function models(server: Server): Promise<Model[]> {
  return (await server.execute('interline.models', [])) as Model[];
}

/** What a model costs and gives, in one line. */
export function facts({ sizeBytes, memoryBytes, license, score }: Model): string {
  const memory = memoryBytes === null ? [] : [`${megabytes(memoryBytes)} of memory`];
  return [megabytes(sizeBytes), ...memory, license, ...(score === null ? [] : [score])].join(' · ');
}

/** Lets the user choose a model, and switches to it. One that is not here is pulled first. */
export async function chooseModel(server: Server): Promise<void> {
  const known = await models(server);
  const items: (vscode.QuickPickItem & { choose?: () => Promise<void> })[] = known.map((model) => ({
    label: model.name,
    description: [marks(model), model.about].filter(Boolean).join(' · '),
    detail: facts(model),
    choose: () => (model.inUse ? Promise.resolve() : get(server, model)),
  }));
  const now = setting<string>('model');
  if (now !== null && !known.some(({ name }) => name === now)) {
    items.unshift({ label: now, description: 'set in interline.model' });
  }
  items.push(
    { label: 'Others', kind: vscode.QuickPickItemKind.Separator },
    { label: 'A folder…', choose: chooseFolder },
    { label: 'From a Hub…', description: 'a GGUF file, by OWNER/REPO[:FILE]', choose: () => chooseFromHub(server) },
  );
  const chosen = await vscode.window.showQuickPick(items, {
    title: 'Interline: models',
    placeHolder: 'Choose a model; one that is not here is downloaded',
    matchOnDescription: true,
    matchOnDetail: true,
  });
  await chosen?.choose?.();
}

/** Pulls a model if it is not here, and switches to it, unless the user cancels. */
export async function get(server: Server, { name, here }: Pick<Model, 'name' | 'here'>): Promise<void> {
  const pulled = here ? name : await pull(server, name);
  if (pulled !== undefined) {
    await use(server, pulled);
  }
}

function marks({ here, inUse, recommended }: Model): string {
  const place = inUse ? '$(check) in use' : here ? 'here' : '$(cloud-download) not here';
  return recommended ? `${place}, recommended` : place;
}

function megabytes(bytes: number): string {
  return `${Math.round(bytes / 1_000_000).toLocaleString('en-US')} MB`;
}

/** A folder outside the store is named by the setting. */
async function chooseFolder(): Promise<void> {
  const picked = await vscode.window.showOpenDialog({ canSelectFolders: true, canSelectFiles: false });
  const folder = picked?.[0]?.fsPath;
  if (folder === undefined) {
    return;
  }
  const files = await vscode.workspace.fs.readDirectory(vscode.Uri.file(folder));
  if (!files.some(([name]) => name === 'onnx' || name.endsWith('.onnx'))) {
    throw new Error(`${folder} has no ONNX graph; \`interline model add\` imports other models`);
  }
  await change<string>('model', () => folder);
}

async function chooseFromHub(server: Server): Promise<void> {
  const name = await vscode.window.showInputBox({
    title: 'Interline: a model from a Hub',
    placeHolder: 'OWNER/REPO or OWNER/REPO:FILE',
    prompt: 'A GGUF file. Without a name, the only one, or the one in q4_k_m.',
  });
  if (name?.trim()) {
    await get(server, { name: name.trim(), here: false });
  }
}

/** Returns the name in the store, or `undefined` if the user has cancelled. */
async function pull(server: Server, name: string): Promise<string | undefined> {
  const options = { location: vscode.ProgressLocation.Notification, title: `Interline: ${name}`, cancellable: true };
  try {
    return await vscode.window.withProgress(options, async (progress, token) => {
      const answer = await server.follow('interline.pullModel', [name], progress, token);
      return (answer as { name: string }).name;
    });
  } catch (error) {
    if (error instanceof ResponseError && error.code === LSPErrorCodes.RequestCancelled) {
      return undefined;
    }
    throw error;
  }
}

/**
 * Switches to a model, for all editors of this user. Where the setting names a model, which goes first, that is
 * changed instead.
 */
async function use(server: Server, name: string): Promise<void> {
  if (setting('model') !== null) {
    await change<string>('model', () => name);
    return;
  }
  const options = { location: vscode.ProgressLocation.Window, title: `Interline: loading ${name}` };
  await vscode.window.withProgress(options, () => server.execute('interline.useModel', [name]));
}

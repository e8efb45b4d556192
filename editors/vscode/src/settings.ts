/** The settings under `interline`, as `package.json` describes them. */

import { ConfigurationTarget, workspace } from 'vscode';

/** The one setting that is the extension's own; all others are the server's. */
export const SERVER_PATH = 'serverPath';

/** The server's settings as they hold, by its own names. `names` are those `package.json` has. */
export function serverSettings(names: string[]): Record<string, unknown> {
  const configuration = workspace.getConfiguration('interline');
  const values = names
    .filter((name) => name !== SERVER_PATH)
    .map((name): [string, unknown] => [name, configuration.get(name)])
    // An empty field in the settings' editor means that nothing is set.
    .filter(([, value]) => value !== null && value !== '');
  return Object.fromEntries(values);
}

export function setting<T>(name: string): T | null {
  return workspace.getConfiguration('interline').get<T>(name) || null;
}

/** Changes a setting where it holds: in the workspace if it has a word on it, else for the user. */
export async function change<T>(name: string, to: (now: T | undefined) => T | undefined): Promise<void> {
  const configuration = workspace.getConfiguration('interline');
  const inWorkspace = configuration.inspect(name)?.workspaceValue !== undefined;
  const target = inWorkspace ? ConfigurationTarget.Workspace : ConfigurationTarget.Global;
  await configuration.update(name, to(configuration.get<T>(name)), target);
}

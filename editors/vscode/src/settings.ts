/** The settings under `interline`, as `package.json` describes them. */

import { ConfigurationTarget, workspace } from 'vscode';

/** The only setting of the extension itself; all others are the server's. */
export const SERVER_PATH = 'serverPath';

/**
 * The effective settings of the server, by their names there. `names` are the settings in `package.json`.
 *
 * A setting that is not set is `null`: to the server, one that is left out keeps its last value.
 */
export function serverSettings(names: string[]): Record<string, unknown> {
  const configuration = workspace.getConfiguration('interline');
  const values = names
    .filter((name) => name !== SERVER_PATH)
    .map((name): [string, unknown] => [name, configuration.get(name) ?? null])
    // An empty field in the settings editor means that the setting is not set.
    .map(([name, value]): [string, unknown] => [name, value === '' ? null : value]);
  return Object.fromEntries(values);
}

/** One setting; `null` if it is empty. */
export function setting<T>(name: string): T | null {
  return workspace.getConfiguration('interline').get<T>(name) || null;
}

/** Changes a setting where it is in effect: in the workspace if it is set there, otherwise for the user. */
export async function change<T>(name: string, to: (now: T | undefined) => T | undefined): Promise<void> {
  const configuration = workspace.getConfiguration('interline');
  const inWorkspace = configuration.inspect(name)?.workspaceValue !== undefined;
  const target = inWorkspace ? ConfigurationTarget.Workspace : ConfigurationTarget.Global;
  await configuration.update(name, to(configuration.get<T>(name)), target);
}

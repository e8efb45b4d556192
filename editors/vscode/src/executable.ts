/** Finds the server's executable. */

import * as fs from 'node:fs';
import * as path from 'node:path';

/** An executable, and where it was found. */
export interface Executable {
  path: string;
  source: string;
}

const NAME = process.platform === 'win32' ? 'interline.exe' : 'interline';

/**
 * Finds the executable: `INTERLINE_SERVER`, then the setting, then the one that comes with the
 * extension, then the path. If an executable was named but does not exist, that is an error, not a
 * reason to use another one.
 *
 * @throws Error that says what is missing and what to do about it
 */
export function findExecutable(extensionPath: string, setting: string | null): Executable {
  const named: [string | null | undefined, string][] = [
    [process.env['INTERLINE_SERVER'], 'the variable INTERLINE_SERVER'],
    [setting, 'the setting interline.serverPath'],
  ];
  for (const [file, source] of named) {
    if (file) {
      const problem = problemWith(file);
      if (problem) {
        throw new Error(`${source} names ${file}, which ${problem}. Correct or remove it.`);
      }
      return { path: file, source };
    }
  }
  const bundled = path.join(extensionPath, 'server', NAME);
  if (!problemWith(bundled)) {
    return { path: bundled, source: 'the extension' };
  }
  // With relative entries, the folder that happens to be open could choose the program.
  const folders = (process.env['PATH'] ?? '').split(path.delimiter).filter(path.isAbsolute);
  const found = folders.map((folder) => path.join(folder, NAME)).find((file) => !problemWith(file));
  if (!found) {
    throw new Error(
      'The server was not found: this build of the extension does not include it, and there is no ' +
        '`interline` on the path. Set interline.serverPath.',
    );
  }
  return { path: found, source: 'the path' };
}

function problemWith(file: string): string | undefined {
  if (!path.isAbsolute(file)) {
    return 'is not an absolute path';
  }
  try {
    if (!fs.statSync(file).isFile()) {
      return 'is not a file';
    }
  } catch {
    // It does not exist or cannot be read.
    return 'is not a file';
  }
  try {
    fs.accessSync(file, fs.constants.X_OK);
  } catch {
    return 'is not executable';
  }
  return undefined;
}

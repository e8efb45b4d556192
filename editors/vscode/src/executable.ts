/** Where the server's executable is. */

import * as fs from 'node:fs';
import * as path from 'node:path';

/** An executable, and which of the places it was found in. */
export interface Executable {
  path: string;
  source: string;
}

const NAME = process.platform === 'win32' ? 'interline.exe' : 'interline';

/**
 * Finds the executable: `INTERLINE_SERVER`, then the setting, then the one that comes with the
 * extension, then the path. One that was named but is not there is an error, not a reason to take
 * another one.
 *
 * @throws Error that says what is not there, and what to do about it
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
  // Relative entries would let the folder that happens to be open choose the program.
  const folders = (process.env['PATH'] ?? '').split(path.delimiter).filter(path.isAbsolute);
  const found = folders.map((folder) => path.join(folder, NAME)).find((file) => !problemWith(file));
  if (!found) {
    throw new Error(
      'The server is not there: this build of the extension has none in it, and there is no ' +
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
    // Nor is what cannot be looked at.
    return 'is not a file';
  }
  try {
    fs.accessSync(file, fs.constants.X_OK);
  } catch {
    return 'is not executable';
  }
  return undefined;
}

// Where the extension looks for the server, and in which order.

import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { test } from 'node:test';

import { findExecutable } from '../src/executable.ts';

/** `files` exist, those with `-` without execute permission. `expected` begins the result or the error. */
function check({ files, variable = '', setting = '', expected }) {
  const home = fs.mkdtempSync(path.join(os.tmpdir(), 'interline-executable-'));
  const at = (name) => (name ? path.join(home, name) : '');
  for (const file of files) {
    const name = file.replace(/^-/, '');
    fs.mkdirSync(path.dirname(at(name)), { recursive: true });
    fs.writeFileSync(at(name), '', { mode: file === name ? 0o755 : 0o644 });
  }
  const { INTERLINE_SERVER, PATH } = process.env;
  Object.assign(process.env, { INTERLINE_SERVER: at(variable), PATH: `bin:${at('bin')}` });
  process.chdir(home);
  let found;
  try {
    const { path: file, source } = findExecutable(at('extension'), at(setting));
    found = `${file}, from ${source}`;
  } catch (error) {
    found = error.message;
  }
  Object.assign(process.env, { INTERLINE_SERVER, PATH });
  process.chdir('/');
  fs.rmSync(home, { recursive: true });
  assert.ok(found.replaceAll(home, 'HOME').startsWith(expected), found);
}

const all = ['named', 'set', 'extension/server/interline', 'bin/interline'];

test('it looks at the variable, then the setting, the extension and the path', () => {
  check({ files: all, variable: 'named', setting: 'set', expected: 'HOME/named, from the variable INTERLINE_SERVER' });
  check({ files: all, setting: 'set', expected: 'HOME/set, from the setting interline.serverPath' });
  check({ files: all, expected: 'HOME/extension/server/interline, from the extension' });
  check({ files: ['bin/interline'], expected: 'HOME/bin/interline, from the path' });
});

test('a named executable that is missing is an error', () => {
  check({ files: all, variable: 'no', expected: 'the variable INTERLINE_SERVER names HOME/no, which is not a file.' });
  check({ files: ['-set'], setting: 'set', expected: 'the setting interline.serverPath names HOME/set, which is not executable.' });
  check({ files: ['-bin/interline'], expected: 'The server was not found' });
});

// In the real VS Code: what can go wrong with the server, and folders that are not trusted.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { closeBrowser, Editor, root, SMALL, until } from './editor.mjs';

const SERVER = path.join(root, 'target/release/interline');
/** The runtime that was downloaded for packaging. */
const CACHE = path.join(root, 'target/vscode/cache');

after(closeBrowser);

/** Writes a shell script, executable unless `mode` says otherwise, and returns its path. */
function script(folder, name, text, mode = 0o755) {
  const file = path.join(folder, name);
  fs.writeFileSync(file, `#!/bin/sh\n${text}\n`, { mode });
  return file;
}

describe('the VSIX that looks for the server', () => {
  let editor;
  before(async () => {
    editor = await Editor.start({ extension: SMALL, env: { INTERLINE_CACHE_DIR: CACHE } });
    await editor.open('a.py', 'a = 1\n$0');
  });
  after(() => editor?.close());

  /** Sets another server, and waits until the user is told all `parts`. */
  async function check(file, ...parts) {
    await editor.command('notifications.clearAll');
    await editor.set('interline.serverPath', file);
    const toast = await editor.notification(parts[0]);
    for (const part of parts) {
      assert.ok(toast.includes(part), toast);
    }
    await editor.status(parts[0]);
  }

  test('says that the server was not found, and what to set', async () => {
    await editor.notification('The server was not found');
    assert.match(await editor.status('The server was not found'), /Set interline\.serverPath/);
  });

  test('says that the named server is missing', () =>
    check('/no/such/interline', 'the setting interline.serverPath names /no/such/interline, which is not a file'));

  test('says that the named server is not executable', () =>
    check(script(editor.home, 'plain', 'exit 0', 0o644), 'plain, which is not executable'));

  test('restarts a server that crashes a few times, and then gives up', async () => {
    const count = path.join(editor.home, 'starts');
    await check(
      script(editor.home, 'crash', `echo start >> ${count}; exit 3`),
      'The server has stopped 5 times, most recently with exit code 3, and will not be restarted',
    );
    assert.equal(fs.readFileSync(count, 'utf8'), 'start\n'.repeat(5));
  });

  test('shows the error of a server that refuses to start', async () => {
    await editor.set('interline.excludedFiles', ['[']);
    await check(SERVER, 'The server refuses to start', 'excludedFiles');
    await editor.command('notifications.clearAll');
    await editor.set('interline.excludedFiles', null);
    await editor.status('is ready');
  });

  test('reports a server that never answers, and stops it before the next one starts', async () => {
    const id = path.join(editor.home, 'id');
    await check(script(editor.home, 'silent', `echo $$ > ${id}; exec sleep 1000`), 'The server does not answer');
    await editor.set('interline.serverPath', SERVER);
    await editor.status('is ready');
    assert.throws(() => process.kill(Number(fs.readFileSync(id, 'utf8')), 0), { code: 'ESRCH' });
  });

  /** The process ids of the servers that this window has started, one per line. */
  async function running() {
    const host = await editor.eval('return process.pid');
    return execFileSync('pgrep', ['-P', String(host), '-f', SERVER], { encoding: 'utf8' }).trim();
  }

  test('runs one server after several restarts at the same time', async () => {
    const first = await running();
    await editor.eval(`await Promise.all([1, 2, 3].map(() => vscode.commands.executeCommand('interline.restart')))`);
    await editor.status('is ready');
    const second = await running();
    assert.match(second, /^\d+$/);
    assert.notEqual(second, first);
  });

  test('refuses a folder that is not a model folder', async () => {
    await editor.command('notifications.clearAll');
    void editor.command('interline.chooseModel');
    await editor.rows('A folder');
    await editor.type('A folder');
    await editor.key('Enter');
    // In a browser, the dialog is a field for a path.
    const field = editor.page.locator('.quick-input-widget input[type=text]');
    await until(async () => (await field.inputValue()).startsWith('/'));
    // The dialog may still be loading its first folder and ignore input.
    const ok = editor.page.locator('.quick-input-widget').getByRole('button', { name: 'OK' });
    await until(async () => {
      if (await ok.isVisible()) {
        // It may also close just now.
        await field.fill(`${editor.folder}/`, { timeout: 1000 }).catch(() => {});
        await ok.click({ timeout: 1000 }).catch(() => {});
      }
      return !(await ok.isVisible());
    });
    await editor.notification('has no ONNX graph');
  });

  test('restarts a server that was killed', async () => {
    const first = await running();
    process.kill(Number(first), 'SIGKILL');
    await editor.status('restarting');
    await editor.status('is ready');
    assert.notEqual(await running(), first);
    assert.equal(await editor.serverText(), 'a = 1\n');
  });

  test('offers the tasks that the server announces', async () => {
    await editor.set('interline.serverPath', path.join(import.meta.dirname, 'scripted_server.mjs'));
    await editor.open('b.py', 'b = 1\n$0');
    await until(async () => {
      await editor.key('F1');
      await editor.type('Interline: Run Task');
      const rows = await editor.page.locator('.quick-input-list .monaco-list-row').allInnerTexts();
      return rows.some((row) => row.includes('Run Task')) || (await editor.key('Escape'));
    });
    await editor.key('Enter');
    for (const choice of ['translate', 'rust']) {
      await until(async () => (await editor.rows('')).join() === choice);
      await editor.key('Enter');
    }
    await until(async () => (await editor.text()).startsWith('interline.translate'));
    const [{ uri, range }, word] = JSON.parse((await editor.text()).slice('interline.translate '.length));
    assert.match(uri, /\/b\.py$/);
    assert.deepEqual(range, { start: { line: 1, character: 0 }, end: { line: 1, character: 0 } });
    assert.equal(word, 'rust');
  });
});

test('a folder that is not trusted cannot make the extension run anything', async () => {
  const names = ['serverPath', 'model', 'runtime'];
  const editor = await Editor.start({
    trust: true,
    settings: { 'interline.offline': true },
    prepare: (editor) => {
      const evil = script(editor.folder, 'evil', `touch ${path.join(editor.home, 'evil-ran')}; exit 1`);
      const settings = Object.fromEntries(names.map((name) => [`interline.${name}`, evil]));
      const others = { 'interline.provider': 'cuda', 'interline.offline': false, 'interline.maxNewTokens': 7 };
      editor.write('.vscode/settings.json', JSON.stringify({ ...settings, ...others }));
    },
  });
  try {
    assert.match(await editor.status('is ready'), /from the extension/);
    assert.equal(await editor.eval('return vscode.workspace.isTrusted'), false);
    // The folder's settings apply, except for the restricted ones.
    const setting = (name) => editor.eval('return vscode.workspace.getConfiguration("interline").get(a[0])', name);
    assert.equal(await setting('maxNewTokens'), 7);
    assert.equal(await setting('provider'), 'auto');
    assert.equal(await setting('offline'), true);
    for (const name of names) {
      assert.equal(await setting(name), null, name);
    }
    assert.ok(!fs.existsSync(path.join(editor.home, 'evil-ran')));
    // Programs that the model writes are not run either, however `solve` is called.
    await editor.open('double.py', `$0${fs.readFileSync(path.join(root, 'examples/double.py'), 'utf8')}`);
    const refusal = await editor.eval(
      `const { document } = vscode.window.activeTextEditor;
       const solve = vscode.commands.executeCommand('interline.solve', { uri: document.uri.toString() });
       return solve.then(() => '', (error) => String(error));`,
    );
    assert.match(refusal, /trust/);
  } finally {
    await editor.close();
  }
});

// VS Code as users have it: code-server in headless Chromium, with the VSIX installed, driven by key presses.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as http from 'node:http';
import * as os from 'node:os';
import * as path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

import { chromium } from 'playwright-core';

const here = import.meta.dirname;
export const root = path.join(here, '../../..');
const version = JSON.parse(fs.readFileSync(path.join(here, '../package.json'), 'utf8')).version;
const vsix = (name) => path.join(root, 'target/vscode', `${name}-${version}.vsix`);
/** The extension with the server, runtime and model, and the extension alone. */
export const FULL = vsix(`interline-${process.platform}-${process.arch}`);
export const SMALL = vsix('interline');
const PROBE = path.join(root, 'target/vscode/probe.vsix');
const entry = path.join(here, 'node_modules/code-server/out/node/entry.js');

const SETTINGS = {
  'workbench.startupEditor': 'none',
  'telemetry.telemetryLevel': 'off',
  'update.mode': 'none',
  'extensions.autoUpdate': false,
  'extensions.autoCheckUpdates': false,
  'chat.disableAIFeatures': true,
  'chat.commandCenter.enabled': false,
  'window.menuBarVisibility': 'hidden',
  'workbench.secondarySideBar.defaultVisibility': 'hidden',
  'files.simpleDialog.enable': true,
  // The tests decide what is in the text, not the editor.
  'editor.autoClosingBrackets': 'never',
  'editor.autoClosingQuotes': 'never',
  'editor.autoIndent': 'none',
  'editor.trimAutoWhitespace': false,
  'editor.quickSuggestions': { other: 'off', comments: 'off', strings: 'off' },
  'editor.suggestOnTriggerCharacters': false,
  'editor.wordBasedSuggestions': 'off',
};

/** Waits until `found` returns something truthy, and returns it. */
export async function until(found, seconds = 60) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const value = await found();
    if (value) {
      return value;
    }
    assert.ok(Date.now() < end, `waited ${seconds} s for ${found}, which last returned ${JSON.stringify(value)}`);
    await pause(25);
  }
}

/** One browser for all tests. */
let browser;
const launch = () =>
  (browser ??= chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  }));
export const closeBrowser = async () => (await browser)?.close();

export class Editor {
  /**
   * Starts the editor on a new folder. With `trust`, workspace trust is on and the folder is not
   * trusted. `prepare` writes into the folder first.
   */
  static async start({ extension = FULL, settings = {}, env = {}, trust = false, prepare }) {
    const editor = new Editor();
    editor.home = fs.mkdtempSync(path.join(os.tmpdir(), 'interline-vscode-'));
    editor.folder = path.join(editor.home, 'project');
    fs.mkdirSync(editor.folder);
    prepare?.(editor);
    const user = path.join(editor.home, 'user');
    editor.settingsFile = path.join(user, 'User/settings.json');
    fs.mkdirSync(path.dirname(editor.settingsFile), { recursive: true });
    const all = { ...SETTINGS, 'security.workspace.trust.enabled': trust, ...settings };
    fs.writeFileSync(editor.settingsFile, JSON.stringify(all));

    editor.env = {
      ...process.env,
      HOME: editor.home,
      EXTENSIONS_GALLERY: '{"serviceUrl":""}',
      PROBE: path.join(editor.home, 'probe'),
      // Ignore any Interline that is installed on this machine.
      INTERLINE_CACHE_DIR: path.join(editor.home, 'cache'),
      PATH: `${path.dirname(process.execPath)}:/usr/bin:/bin`,
      ...env,
    };
    const folders = ['--user-data-dir', user, '--extensions-dir', path.join(editor.home, 'extensions')];
    try {
      await editor.launch(folders, extension, trust);
    } catch (error) {
      editor.kill();
      throw error;
    }
    return editor;
  }

  async launch(folders, extension, trust) {
    for (const file of [extension, PROBE]) {
      execFileSync(process.execPath, [entry, ...folders, '--install-extension', file], { env: this.env });
    }
    this.process = spawn(
      process.execPath,
      [entry, ...folders, '--auth', 'none', '--bind-addr', '127.0.0.1:0', '--disable-telemetry',
        '--disable-update-check', '--disable-getting-started-override',
        ...(trust ? [] : ['--disable-workspace-trust']), this.folder],
      { env: this.env, stdio: ['ignore', 'pipe', 'pipe'], detached: true },
    );
    this.output = '';
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream.on('data', (data) => (this.output += data));
    }
    this.url = await until(() => this.output.match(/listening on (http:\S+?)\/?\s/)?.[1]);
    this.page = await this.window();
  }

  /** Opens a window on the folder. */
  async window() {
    const context = await (await launch()).newContext({ viewport: { width: 1000, height: 560 } });
    const page = await context.newPage();
    await page.goto(`${this.url}/?folder=${this.folder}`);
    await page.locator('.monaco-workbench .part.statusbar').waitFor({ timeout: 60_000 });
    return page;
  }

  async close() {
    await this.page.context().close();
    this.kill();
  }

  /** Evaluates code in the extension host, with `vscode` in scope and the arguments in `a`. */
  async eval(code, ...a) {
    const body = `const a = ${JSON.stringify(a)}; ${code}`;
    const answer = await new Promise((resolve, reject) => {
      const request = http.request({ socketPath: this.env.PROBE, method: 'POST' }, async (response) => {
        let text = '';
        for await (const part of response) text += part;
        resolve(JSON.parse(text));
      });
      request.on('error', reject);
      request.end(body);
    });
    assert.equal(answer.error, undefined);
    return answer.value;
  }

  /** Kills the editor and its child processes, and removes its files. */
  kill() {
    if (this.process) {
      process.kill(-this.process.pid, 'SIGKILL');
    }
    fs.rmSync(this.home, { recursive: true, force: true, maxRetries: 5 });
  }

  write(name, text) {
    const file = path.join(this.folder, name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, text);
    return file;
  }

  read(name) {
    return fs.readFileSync(path.join(this.folder, name), 'utf8');
  }

  /** Waits until the status bar item contains this text, and returns all of it. */
  async status(part, page = this.page) {
    const item = page.locator('[id="interline.interline.interline"] a');
    return until(async () => {
      const label = await item.getAttribute('aria-label');
      return label.includes(part) && label;
    });
  }

  /** Runs a VS Code command. */
  async command(...command) {
    return this.eval('return vscode.commands.executeCommand(...a)', ...command);
  }

  /** Changes a user setting; `null` resets it. */
  async set(name, value) {
    await this.eval(
      "await vscode.workspace.getConfiguration().update(a[0], a[1] ?? undefined, vscode.ConfigurationTarget.Global)",
      name,
      value,
    );
  }

  /** Writes a file with this text and opens it as the only editor, with the cursor at `$0`. */
  async open(name, text) {
    const [before, after] = text.split('$0');
    this.write(name, before + after);
    await this.show(name, before.length);
  }

  /** Opens an existing file as the only editor. */
  async show(name, offset = 0) {
    await until(() => this.eval('return true').catch(() => false));
    await this.command('workbench.action.revertAndCloseActiveEditor');
    await this.eval(
      `const editor = await vscode.window.showTextDocument(vscode.Uri.file(a[0]), { preview: false });
       const cursor = editor.document.positionAt(a[1]);
       editor.selection = new vscode.Selection(cursor, cursor);`,
      path.join(this.folder, name),
      offset,
    );
    await this.command('workbench.action.focusActiveEditorGroup');
    await this.page.locator('.editor-instance .native-edit-context:focus, .editor-instance textarea:focus').waitFor({ state: 'attached' });
  }

  async type(text) {
    await this.page.keyboard.type(text);
  }

  async key(...keys) {
    for (const key of keys) {
      await this.page.keyboard.press(key);
    }
  }

  /** The text of the active editor. */
  async text() {
    return this.eval('return vscode.window.activeTextEditor.document.getText()');
  }

  /** The server's text of the active document. */
  async serverText() {
    return this.eval(
      `return vscode.commands.executeCommand('interline.documentText',
         vscode.window.activeTextEditor.document.uri.toString())`,
    );
  }

  /** The ghost text as drawn. */
  async ghost(page = this.page) {
    return page.evaluate(readGhost);
  }

  /** Waits for ghost text other than `before`, until it is complete: its lines are drawn one by one. */
  async seeGhost(page = this.page, before = '') {
    const steady = async () => {
      const ghost = await this.ghost(page);
      if (ghost === before) {
        return '';
      }
      await page.evaluate(async (frames) => {
        for (let frame = 0; frame < frames; frame++) {
          await new Promise(requestAnimationFrame);
        }
      }, 10);
      return ghost === (await this.ghost(page)) && ghost;
    };
    return until(steady, 20).catch(async () => {
      const records = await this.command('interline.why', 5);
      assert.fail(`no ghost text; the latest requests: ${records.map(({ message }) => message).join('; ')}`);
    });
  }

  /** Presses a key, and returns the ghost text that was drawn at that moment. */
  async take(key) {
    await this.page.evaluate((read) => {
      const listen = () => (window.taken = eval(read)());
      window.addEventListener('keydown', listen, { capture: true, once: true });
    }, `(${readGhost})`);
    await this.page.keyboard.press(key);
    return this.page.evaluate(() => window.taken);
  }

  /** Waits until the active editor has this text. */
  async seeText(text) {
    await until(async () => (await this.text()) === text, 5).catch(async () => assert.equal(await this.text(), text));
  }

  /** Waits for a notification that contains this text, and returns all of it. */
  async notification(part) {
    const toasts = this.page.locator('.notifications-toasts .notification-list-item');
    return until(async () => (await toasts.allInnerTexts()).find((text) => text.includes(part)));
  }

  /** Waits until a row of the quick pick contains this text, and returns all rows. */
  async rows(part) {
    const rows = this.page.locator('.quick-input-list .monaco-list-row');
    return until(async () => {
      const labels = await rows.evaluateAll((all) => all.map((row) => row.getAttribute('aria-label')));
      return labels.some((label) => label.includes(part)) && labels;
    });
  }

  async screenshot(name) {
    await this.page.screenshot({ path: path.join(root, 'target/vscode', `${name}.png`) });
  }
}

/** Runs in the page. */
function readGhost() {
  const text = (element) => element.textContent.replaceAll('\u00a0', ' ').replaceAll('\u200b', '');
  const all = (selector) => [...document.querySelectorAll(`.editor-instance ${selector}`)];
  const first = all('.view-lines .ghost-text-decoration').map(text).join('');
  const below = all('.suggest-preview-text .view-line').map(text);
  return [first, ...below].join('\n');
}

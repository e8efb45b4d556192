// Models in the real VS Code: the list, pulling from a Hub on loopback, switching, and the offer.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';

import { closeBrowser, Editor, root, until } from './editor.mjs';

const BETTER = 'qwen2.5-coder-0.5b';
const AREA = `class Rectangle:
    def __init__(self, width, height):
        self.width = width
        self.height = height

    def area(self):
        return $0
`;

let hub;
let endpoint;
before(async () => {
  hub = spawn('python3', [path.join(root, 'editors/test/hub.py')], { stdio: ['ignore', 'pipe', 'inherit'] });
  endpoint = (await createInterface({ input: hub.stdout })[Symbol.asyncIterator]().next()).value;
});
after(async () => {
  hub?.kill();
  await closeBrowser();
});

describe('the list of models', () => {
  const store = fs.mkdtempSync(path.join(os.tmpdir(), 'interline-models-'));
  let editor;
  before(async () => {
    editor = await Editor.start({ env: { HF_ENDPOINT: endpoint, INTERLINE_MODELS_DIR: store } });
    await editor.status('is ready');
  });
  after(async () => {
    await editor?.close();
    fs.rmSync(store, { recursive: true, force: true });
  });

  /** Opens the list from the palette, and returns its rows. */
  async function list() {
    await editor.key('F1');
    await editor.type('Interline: Models');
    await editor.rows('Models…');
    await editor.key('Enter');
    return editor.rows(BETTER);
  }

  async function choose(name) {
    await list();
    await editor.type(name);
    await editor.page.locator(`.quick-input-list .monaco-list-row.focused[aria-label^="${name}"]`).waitFor();
    await editor.key('Enter');
  }

  /** Asks for a model by the name of its repository. */
  async function pull(repository) {
    await choose('From a Hub');
    const field = editor.page.locator('.quick-input-widget').getByPlaceholder('OWNER/REPO');
    await field.fill(repository);
    await editor.key('Enter');
    await field.waitFor({ state: 'hidden' });
  }

  const isInUse = async (name) =>
    (await editor.command('interline.models')).some((model) => model.inUse && model.name === name);

  /** Opens a file, types until the model from the Hub is in use, and sees its ghost text. */
  async function typeUntil(name, begin) {
    await editor.open(`${name}.py`, AREA);
    await begin();
    await editor.page.locator('.editor-instance .native-edit-context:focus, .editor-instance textarea:focus').waitFor({ state: 'attached' });
    let typed = '';
    const type = async (text) => {
      await editor.type(text);
      typed += text;
    };
    await until(async () => {
      await type('x ');
      return isInUse(name);
    });
    await type('y = ');
    await until(async () => (await editor.ghost()) === 'tiny');
    await editor.seeText(AREA.replace('$0', typed));
    assert.equal(await editor.serverText(), await editor.text());
  }

  /** Waits until the model that comes with Interline is in use, and returns its ghost text in a new file. */
  async function seeDefault(name) {
    await until(() => isInUse('smollm2-135m-fim'));
    await editor.open(name, AREA);
    await editor.type('self.');
    return editor.seeGhost();
  }

  test('shows what each one costs and gives', async () => {
    const rows = await list();
    await editor.screenshot('models');
    await editor.key('Escape');
    assert.match(rows[0], /^smollm2-135m-fim, .*in use/);
    assert.match(rows[1], /^qwen2\.5-coder-0\.5b, .*not here, recommended/);
    assert.match(rows[1], /491 MB · 620 MB of memory · Apache-2\.0 · /);
  });

  test('a model is pulled from a Hub and used, while the user types', async () => {
    await typeUntil('tiny', () => pull('owner/tiny'));
    assert.match((await list()).find((row) => row.startsWith('tiny')), /in use/);
    await editor.key('Escape');
  });

  test('a model that is here is used at once; where the setting names a model, it is changed', async () => {
    const setting = () => editor.eval("return vscode.workspace.getConfiguration('interline').get('model')");
    await choose('smollm2-135m-fim');
    assert.notEqual(await seeDefault('switched.py'), 'tiny');
    assert.equal(await setting(), null);
    await editor.set('interline.model', 'tiny');
    await until(() => isInUse('tiny'));
    await choose('smollm2-135m-fim');
    assert.notEqual(await seeDefault('setting.py'), 'tiny');
    assert.equal(await setting(), 'smollm2-135m-fim');
    await editor.set('interline.model', null);
  });

  test('a cancelled pull leaves the model in use, and the next one continues it', async () => {
    const ghost = await seeDefault('before.py');
    await pull('owner/slow');
    await editor.notification('of 3 MB');
    await editor.screenshot('pull');
    await editor.page.getByRole('button', { name: 'Cancel' }).click();
    const toasts = editor.page.locator('.notifications-toasts .notification-list-item');
    await until(async () => (await toasts.count()) === 0);
    const rows = await list();
    assert.match(rows[0], /in use/);
    assert.ok(!rows.some((row) => row?.startsWith('slow')), rows.join('\n'));
    await editor.key('Escape');
    assert.equal(await seeDefault('after.py'), ghost);
    await typeUntil('slow', () => pull('owner/slow'));
  });

  test('what cannot be pulled is refused with the reason', async () => {
    await pull('owner/none');
    await editor.notification('does not exist (404)');
    await editor.command('notifications.clearAll');
    await pull('nonsense');
    await editor.notification('nor OWNER/REPO[:FILE]');
    await editor.command('notifications.clearAll');
  });
});

describe('the offer of the recommended model', () => {
  const store = fs.mkdtempSync(path.join(os.tmpdir(), 'interline-models-'));
  let editor;
  before(async () => {
    editor = await Editor.start({ env: { HF_ENDPOINT: endpoint, INTERLINE_MODELS_DIR: store } });
    await editor.status('is ready');
    // A new window misses the very first keys.
    await editor.open('a.py', AREA);
    await until(async () => {
      await editor.command('editor.action.inlineSuggest.trigger');
      return editor.ghost();
    });
  });
  after(async () => {
    await editor?.close();
    fs.rmSync(store, { recursive: true, force: true });
  });

  const toasts = () => editor.page.locator('.notifications-toasts .notification-list-item').allInnerTexts();

  /** Sees ghost text in so many files, and saves the last one. */
  async function seeAndSave(name, count) {
    for (let number = 1; number <= count; number++) {
      await editor.open(`${name}${number}.py`, AREA);
      await editor.type('self.');
      await editor.seeGhost();
    }
    await editor.key('Escape', 'Control+s');
    await until(() => editor.read(`${name}${count}.py`).includes('self.\n'));
  }

  test('is made once, when the user saves a file after some completions', async () => {
    await seeAndSave('few', 5);
    assert.deepEqual(await toasts(), []);
    await seeAndSave('enough', 16);
    const offer = await editor.notification(BETTER);
    assert.match(offer, /491 MB · 620 MB of memory · Apache-2\.0/);
    await editor.screenshot('offer');
    await editor.page.getByRole('button', { name: 'Not Now' }).click();
    await until(async () => (await toasts()).length === 0);
    await seeAndSave('again', 21);
    assert.deepEqual(await toasts(), []);
    // Nothing was downloaded.
    assert.deepEqual(fs.readdirSync(store), []);
  });
});

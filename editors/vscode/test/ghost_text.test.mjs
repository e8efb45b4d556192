// Ghost text in the real VS Code, with the VSIX that contains everything.

import assert from 'node:assert/strict';
import * as path from 'node:path';
import { after, before, test } from 'node:test';

import { closeBrowser, Editor, until } from './editor.mjs';

const CLASS = `class Rectangle:
    def __init__(self, width, height):
        self.width = width
        self.height = height

`;
const AREA = `${CLASS}    def area(self):\n        $0\n`;

let editor;
before(async () => {
  editor = await Editor.start({ settings: { 'files.readonlyInclude': { '**/read_only.py': true } } });
  await editor.status('is ready');
  // A new window misses the very first keys: VS Code sets up ghost text once it is idle.
  await editor.open('first.py', AREA);
  await until(async () => {
    await editor.command('editor.action.inlineSuggest.trigger');
    return editor.ghost();
  });
});
after(async () => {
  await editor?.close();
  await closeBrowser();
});

/** Types into the text, accepts the ghost text, and compares the editor, the disk and the server. */
async function check(name, text, typed, picture) {
  await editor.open(name, text);
  await editor.type(typed);
  await editor.seeGhost();
  if (picture) {
    await editor.screenshot(picture);
  }
  const ghost = await editor.take('Tab');
  const ending = text.includes('\r\n') ? '\r\n' : '\n';
  const expected = text.replace('$0', () => typed + ghost.replaceAll('\n', ending));
  await editor.seeText(expected);
  await editor.key('Control+s');
  await until(() => editor.read(name) === expected);
  assert.equal(await editor.serverText(), expected);
  return ghost;
}

test('the text that is accepted is the text that was shown', async () => {
  await check('area.py', AREA, 'return ', 'ghost-text');
  assert.match(await editor.status('Last completion'), /[\d.]+ ms, \d+ prompt tokens computed, \d+ reused, \d+ written/);
});

test('accepting in Rust', () =>
  check(
    'words.rs',
    `use std::collections::HashMap;

/// Counts the words of a text.
fn count(text: &str) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for word in text.split_whitespace() {
        $0
    }
    counts
}
`,
    '*counts.',
  ));

test('accepting in TypeScript', () =>
  check(
    'cache.ts',
    `export class Cache<K, V> {
  private readonly entries = new Map<K, V>();

  has(key: K): boolean {
    $0
  }
}
`,
    'return this.',
  ));

test('before a closing bracket nothing is overwritten', () => check('bracket.py', `${CLASS}print(Rectangle$0)\n`, '('));

test('in the middle of a line nothing is overwritten', () =>
  check('middle.py', `${CLASS}    def area(self):\n        return $0 * 2\n`, 'self.'));

test('carriage returns are kept', async () => {
  await check('crlf.py', AREA.replaceAll('\n', '\r\n'), 'return ');
  assert.doesNotMatch(editor.read('crlf.py'), /[^\r]\n/);
});

test('accepting after characters of several units', () =>
  check('units.py', `${CLASS}    def area(self):\n        name = "😀é"; $0\n`, 'return '));

test('undo removes what was accepted and nothing else', async () => {
  await editor.open('undo.py', AREA);
  await editor.type('return ');
  await editor.seeGhost();
  const ghost = await editor.take('Tab');
  await editor.seeText(AREA.replace('$0', () => `return ${ghost}`));
  await editor.key('Control+z');
  await editor.seeText(AREA.replace('$0', 'return '));
});

test('accepting the next word, then the rest of the line', async () => {
  await editor.open('word.py', AREA);
  await editor.type('return ');
  await editor.seeGhost();
  const ghost = await editor.take('Control+ArrowRight');
  const word = ghost.match(/^\s*(\w+|\W)/)[0];
  assert.ok(word.length < ghost.length, ghost);
  await editor.seeText(AREA.replace('$0', `return ${word}`));
  await until(async () => (await editor.ghost()) === ghost.slice(word.length));
  await editor.key('Control+Alt+ArrowRight');
  await editor.seeText(AREA.replace('$0', () => `return ${ghost.split('\n')[0]}`));
});

test('candidates wrap around', async () => {
  await editor.open('candidates.py', `${CLASS}    def $0\n`);
  await editor.key('Alt+Backslash');
  const first = await editor.seeGhost();
  await editor.key('Alt+BracketRight');
  const second = await editor.seeGhost(editor.page, first);
  await editor.screenshot('candidates');
  await editor.key('Alt+BracketLeft');
  await until(async () => (await editor.ghost()) === first);
  await editor.key('Alt+BracketRight');
  await until(async () => (await editor.ghost()) === second);
  await editor.key('Tab');
  await editor.seeText(`${CLASS}    def ${second}\n`);
});

test('typing through ghost text keeps it in place', async () => {
  await editor.open('through.py', AREA);
  await editor.type('return ');
  const ghost = await editor.seeGhost();
  for (let typed = 1; typed <= 3; typed++) {
    await editor.type(ghost[typed - 1]);
    await until(async () => (await editor.ghost()) === ghost.slice(typed));
  }
  await editor.key('Escape');
  await until(async () => (await editor.ghost()) === '');
});

test('deleting leaves no debris', async () => {
  await editor.open('delete.py', AREA);
  await editor.type('return ');
  await editor.seeGhost();
  for (let count = 0; count < 'return '.length; count++) {
    await editor.key('Backspace');
  }
  await editor.key('Escape');
  await editor.seeText(AREA.replace('$0', ''));
  await until(async () => (await editor.ghost()) === '');
  assert.equal(await editor.serverText(), AREA.replace('$0', ''));
});

test('ghost text continues the selected item of the menu', async () => {
  await editor.eval(
    `globalThis.menu = vscode.languages.registerCompletionItemProvider('python', {
       provideCompletionItems: () => [new vscode.CompletionItem('width_in_pixels')],
     })`,
  );
  await editor.open('menu.py', `${CLASS}    def area(self):\n        return self.$0\n`);
  await editor.type('wid');
  await editor.key('Control+Space');
  await editor.page.locator('.suggest-widget.visible .monaco-list-row').first().waitFor();
  const ghost = await editor.seeGhost();
  assert.match(ghost, /^th_in_pixels/);
  await editor.screenshot('menu');
  await editor.key('Enter');
  await until(async () => /return self\.width_in_pixels\n/.test(await editor.text()));
  await editor.eval('globalThis.menu.dispose()');
});

test('editor and server have the same text after 200 random keys', async () => {
  await editor.open('random.py', `${CLASS}$0`);
  const keys = ['a', 's', '(', ')', ' ', '"', ':', '=', '.', 'Enter', 'Backspace', 'Control+Backspace', 'Delete',
    'ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown', 'Home', 'End', 'Tab', 'Control+ArrowRight', 'Alt+BracketRight',
    'Escape', 'Control+z', 'Control+y'];
  let state = 1;
  const draw = () => (state = (state * 48271) % 2147483647) / 2147483647;
  for (let count = 0; count < 200; count++) {
    await editor.key(keys[Math.floor(draw() * keys.length)]);
    // Pause now and then, as a person does.
    if (draw() < 0.05) {
      await until(async () => (await editor.serverText()) === (await editor.text()), 5);
    }
  }
  await until(async () => (await editor.serverText()) === (await editor.text()), 5);
});

test('the palette has the commands and shows why nothing was suggested', async () => {
  await editor.open('why.py', `${CLASS}x = "a$0b"\n`);
  await editor.type('c');
  await until(async () => (await editor.command('interline.why', 1))[0].message.includes('inside a word'));
  await editor.key('F1');
  await editor.type('Interline: ');
  const rows = await editor.rows('Show Log');
  const names = ['Status Menu', 'Why Was Nothing Suggested?', 'Enable or Disable in This File',
    'Enable or Disable for This Language', 'Enable or Disable Everywhere', 'Models…', 'Run Task…', 'Restart Server', 'Show Log'];
  for (const name of names) {
    assert.ok(rows.some((row) => row.startsWith(`Interline: ${name}`)), `${name} in ${rows}`);
  }
  await editor.screenshot('palette');
  await editor.type('Why');
  await editor.key('Enter');
  await editor.rows('why.py: nothing shown, because the cursor is inside a word');
  await editor.screenshot('why');
  await editor.key('Escape');
});

test('completion is switched off and on in a file, for a language and everywhere', async () => {
  const commands = {
    toggleFile: 'switched off in this file',
    toggleLanguage: 'completion is switched off for this language',
    toggleEverywhere: 'completion is switched off',
  };
  const latest = async () => (await editor.command('interline.why', 1))[0];
  for (const [command, reason] of Object.entries(commands)) {
    await editor.open('switch.py', AREA);
    await editor.status('is ready');
    const before = await latest();
    await editor.command(`interline.${command}`);
    try {
      await editor.status(`off here: ${reason}`);
      await editor.type('return ');
      await editor.command('editor.action.inlineSuggest.trigger');
      if (command === 'toggleFile') {
        assert.equal((await latest()).id, before.id, 'the server must get no request');
      } else {
        await until(async () => (await latest()).id > before.id);
        assert.ok((await latest()).message.includes(reason));
      }
      assert.equal(await editor.ghost(), '');
    } finally {
      await editor.command(`interline.${command}`);
    }
  }
  await editor.status('is ready');
  await editor.type('self.');
  await editor.seeGhost();
});

test('a file with secrets shows as off, and the next file does not', async () => {
  await editor.open('.env', 'KEY=1\n$0');
  await editor.status('off here: files that match .env* are not shown to the model');
  await editor.screenshot('off');
  await editor.show('area.py');
  await editor.status('is ready');
});

test('documents that are not files are left alone', async () => {
  await editor.eval(
    `vscode.workspace.registerTextDocumentContentProvider('virtual', { provideTextDocumentContent: () => 'a = 1\\n' });
     await vscode.window.showTextDocument(vscode.Uri.parse('virtual:a.py'));`,
  );
  await editor.status('off here: this is not a file');
  assert.equal(await editor.serverText(), null);
});

test('a read-only file is left unchanged', async () => {
  await editor.open('read_only.py', AREA);
  await editor.type('return ');
  await editor.command('editor.action.inlineSuggest.trigger');
  await editor.key('Tab', 'Escape');
  await editor.seeText(AREA.replace('$0', ''));
});

test('accepting in a file of 5 MB', async () => {
  const line = '    total = total + 1  # as the line before it, and the line before that\n';
  await check('large.py', line.repeat(Math.ceil(5e6 / line.length)) + AREA, 'return ');
});

test('two windows on the same folder both show ghost text', async () => {
  await editor.open('window.py', AREA);
  const page = await editor.window();
  await page.locator('.explorer-folders-view .monaco-list-row[aria-label^="area.py"]').dblclick();
  await editor.status('is ready', page);
  await page.locator('.editor-instance .view-lines').click();
  await page.keyboard.press('Control+End');
  await page.keyboard.type('\n    def width_and_height(self):\n        return (self.width, ');
  await editor.seeGhost(page);
  await editor.type('return ');
  await editor.seeGhost();
  await page.context().close();
});

test('a missing model is named, and the old one stays in use until the setting is corrected', async () => {
  const folder = path.join(editor.home, 'no_model');
  await editor.set('interline.model', folder);
  const toast = await editor.notification('stays in use');
  assert.ok(toast.includes(folder), toast);
  await editor.status(folder);
  await editor.screenshot('broken-model');
  await check('again.py', AREA, 'return ');
  await editor.set('interline.model', null);
});

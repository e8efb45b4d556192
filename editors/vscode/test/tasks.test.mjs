// Tasks in the real VS Code: from the palette, with the real server and model.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { closeBrowser, Editor, until } from './editor.mjs';

const FUNCTION = 'def area(width, height):\n    return width * height\n';

let editor;
before(async () => {
  editor = await Editor.start({});
  await editor.status('is ready');
});
after(async () => {
  await editor?.close();
  await closeBrowser();
});

/** Runs a task from the palette, with what is chosen then. */
async function run(task, ...choices) {
  await editor.key('F1');
  await editor.type('Interline: Run Task');
  await editor.rows('Run Task…');
  await editor.key('Enter');
  for (const choice of [task, ...choices]) {
    await editor.rows(choice);
    await editor.type(choice);
    await editor.rows(choice);
    await editor.key('Enter');
  }
}

test('a translation opens beside its source', async () => {
  await editor.open('area.py', `$0${FUNCTION}`);
  await run('translate', 'rust');
  await until(async () => (await editor.eval('return vscode.window.activeTextEditor?.document.languageId')) === 'rust');
  assert.match(await editor.text(), /fn area\(/);
  await editor.screenshot('translate');
  assert.equal(editor.read('area.py'), FUNCTION);
  await editor.command('workbench.action.revertAndCloseActiveEditor');
});

test('a comment is written into the file, and undo takes it back', async () => {
  await editor.open('document.py', `$0${FUNCTION}`);
  await run('document');
  await until(async () => (await editor.text()) !== FUNCTION);
  const [first, comment, last] = (await editor.text()).split('\n');
  assert.deepEqual([first, last], FUNCTION.trimEnd().split('\n'));
  assert.match(comment, /^ {4}"""Return .*"""$/);
  assert.equal(await editor.serverText(), await editor.text());
  await editor.key('Control+z');
  await editor.seeText(FUNCTION);
});

test('what cannot be done is said', async () => {
  await editor.open('nothing.py', 'x = 1\n$0');
  await run('document');
  assert.match(await editor.notification('no function or type'), /line 2/);
});

test('a code action does the same', async () => {
  await editor.open('action.py', `$0${FUNCTION}`);
  const titles = await editor.eval(
    `const { document } = vscode.window.activeTextEditor;
     const range = new vscode.Range(0, 0, 1, 0);
     globalThis.actions = await vscode.commands.executeCommand('vscode.executeCodeActionProvider', document.uri, range);
     return globalThis.actions.map(({ title }) => title);`,
  );
  const ours = titles.filter((title) => title.startsWith('Interline: '));
  assert.deepEqual(ours, ['Interline: explain', 'Interline: document', 'Interline: write a test']);
  await editor.eval(
    `const { command } = globalThis.actions.find(({ title }) => title === 'Interline: document');
     await vscode.commands.executeCommand(command.command, ...command.arguments);`,
  );
  await until(async () => /"""Return .*"""/.test(await editor.text()));
});

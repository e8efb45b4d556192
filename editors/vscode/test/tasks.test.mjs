// Tasks from the palette of the real VS Code, with the real server and model.

import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { after, before, test } from 'node:test';

import { closeBrowser, Editor, root, until } from './editor.mjs';

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

/** Runs a task from the palette, and makes these choices in turn. */
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

test('a translation opens beside the source file', async () => {
  await editor.open('area.py', `$0${FUNCTION}`);
  await run('translate', 'rust');
  await until(async () => (await editor.eval('return vscode.window.activeTextEditor?.document.languageId')) === 'rust');
  assert.match(await editor.text(), /fn area\(/);
  await editor.screenshot('translate');
  assert.equal(editor.read('area.py'), FUNCTION);
  await editor.command('workbench.action.revertAndCloseActiveEditor');
});

test('a comment is written into the file, and undo removes it', async () => {
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

/** Waits for a new document from a task, closes it, and returns its text. */
async function written(languageId) {
  await until(() =>
    editor.eval(
      `const { document } = vscode.window.activeTextEditor ?? {};
       return document?.isUntitled && document.languageId === a[0]`,
      languageId,
    ),
  );
  const text = await editor.text();
  await editor.command('workbench.action.revertAndCloseActiveEditor');
  return text;
}

test('an explanation opens in a new document', async () => {
  await editor.open('explain.py', `$0${FUNCTION}`);
  await run('explain');
  assert.match(await written('markdown'), /\w+ \w+ \w+/);
});

test('a test opens in a new document', async () => {
  await editor.open('shapes.py', `$0${FUNCTION}`);
  await run('test');
  assert.match(await written('python'), /^from shapes import area\n\n\ndef test_area\(\):\n {4}assert area\(/);
});

test('code is generated from the comment at the cursor, and undo removes it', async () => {
  const comment = 'import math\n\n# Returns the largest of three numbers.';
  await editor.open('generate.py', `${comment}$0\n`);
  await run('generate');
  await editor.page.getByPlaceholder('what the comment at the cursor says').waitFor();
  await editor.key('Enter');
  await until(async () => (await editor.text()) !== `${comment}\n`);
  assert.ok((await editor.text()).startsWith(`${comment}\ndef `), await editor.text());
  await editor.key('Control+z');
  await editor.seeText(`${comment}\n`);
});

test('code is generated from a typed description', async () => {
  await editor.open('typed.py', '$0');
  await run('generate');
  await editor.page.getByPlaceholder('what the comment at the cursor says').waitFor();
  await editor.type('a function that adds two numbers');
  await editor.key('Enter');
  assert.match(await written('python'), /def /);
  assert.equal(await editor.text(), '');
});

test('code is fixed from its diagnostics', async () => {
  const wrong = FUNCTION.replace('* height', '* heigth');
  await editor.open('fix.py', `$0${wrong}`);
  await editor.eval(
    `const { document, selection } = vscode.window.activeTextEditor;
     globalThis.wrong = vscode.languages.createDiagnosticCollection('test');
     const problem = new vscode.Diagnostic(new vscode.Range(1, 19, 1, 25), "undefined name 'heigth'");
     globalThis.wrong.set(document.uri, [problem]);
     vscode.window.activeTextEditor.selection = new vscode.Selection(1, 0, 1, 0);`,
  );
  await run('fix');
  await until(async () => (await editor.text()) !== wrong);
  assert.equal(await editor.serverText(), await editor.text());
});

test('a problem is solved only if the user lets the programs run', async () => {
  const problem = fs.readFileSync(path.join(root, 'examples/double.py'), 'utf8');
  await editor.open('double.py', `$0${problem}`);
  await run('solve');
  const question = 'run programs that the model writes';
  await editor.notification(question);
  await editor.page.getByRole('button', { name: 'Run them' }).click();
  assert.ok((await written('python')).startsWith(problem));
  assert.match(await editor.notification('20 drawn'), /clusters of \d/);
  // Without permission nothing is run, and no message is shown.
  await editor.command('notifications.clearAll');
  await run('solve');
  await editor.notification(question);
  await editor.command('notifications.clearAll');
  assert.equal(await editor.text(), problem);
});

test('a task that cannot be done says why', async () => {
  await editor.open('nothing.py', 'x = 1\n$0');
  await run('document');
  assert.match(await editor.notification('no function or type'), /line 2/);
});

test('a code action runs the same task', async () => {
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

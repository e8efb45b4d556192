// Builds two VSIX files in target/vscode/: a small one that looks for the server, and one for this
// platform that contains the server, ONNX Runtime and the model.

import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';

import { build } from 'esbuild';

const here = import.meta.dirname;
const root = path.join(here, '../..');
const out = path.join(root, 'target/vscode');
const stage = path.join(out, 'stage');
const exe = process.platform === 'win32' ? 'interline.exe' : 'interline';
const platform = `${process.platform}-${process.arch}`;

const run = (command, args, options = {}) => execFileSync(command, args, { stdio: 'inherit', ...options });
const copy = (from, to) => fs.cpSync(from, path.join(stage, to), { recursive: true });

const manifest = JSON.parse(fs.readFileSync(path.join(here, 'package.json'), 'utf8'));

function pack(name, ...args) {
  const file = path.join(out, `${name}.vsix`);
  const vsce = path.join(here, 'node_modules/@vscode/vsce/vsce');
  run(process.execPath, [vsce, 'package', '--no-dependencies', '--allow-missing-repository', '-o', file, ...args], {
    cwd: stage,
  });
  return file;
}

fs.rmSync(stage, { recursive: true, force: true });
fs.mkdirSync(stage, { recursive: true });
await build({
  entryPoints: [path.join(here, 'src/extension.ts')],
  outfile: path.join(stage, 'dist/extension.js'),
  bundle: true,
  minify: true,
  format: 'cjs',
  platform: 'node',
  target: 'node20',
  external: ['vscode'],
});
copy(path.join(here, 'package.json'), 'package.json');
copy(path.join(here, 'README.md'), 'README.md');
copy(path.join(root, 'CHANGELOG.md'), 'CHANGELOG.md');
copy(path.join(root, 'LICENSE-MIT'), 'LICENSE');
copy(path.join(root, 'LICENSE-APACHE'), 'LICENSE-APACHE');
pack(`interline-${manifest.version}`);

run('cargo', ['build', '--release', '--locked', '--quiet'], { cwd: root });
const server = path.join(root, 'target/release', exe);
// This downloads the runtime into a cache that holds no other runtime, and checks its hash.
const cache = path.join(out, 'cache');
run(server, ['doctor'], { env: { ...process.env, INTERLINE_CACHE_DIR: cache } });
copy(server, `server/${exe}`);
const runtimes = fs.readdirSync(cache).filter((name) => name.startsWith('onnxruntime-'));
if (runtimes.length !== 1) {
  throw new Error(`${cache} holds ${runtimes} instead of one runtime; remove it and package again`);
}
copy(path.join(cache, runtimes[0]), 'server');
copy(path.join(root, 'models/smollm2-135m-fim'), 'server/models/smollm2-135m-fim');
copy(path.join(here, 'LICENSE-onnxruntime'), 'server/LICENSE-onnxruntime');
pack(`interline-${platform}-${manifest.version}`, '--target', platform);

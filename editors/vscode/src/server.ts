/** The server: its process, the client that talks to it, and restarts after crashes. */

import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import * as os from 'node:os';
import { createInterface } from 'node:readline';
import * as vscode from 'vscode';
import {
  CloseAction,
  type DocumentSelector,
  ErrorAction,
  ErrorCodes,
  LanguageClient,
  type LanguageClientOptions,
  MessageType,
  ResponseError,
  ShowMessageNotification,
  WorkDoneProgress,
} from 'vscode-languageclient/node';

import { findExecutable } from './executable';
import { SERVER_PATH, serverSettings, setting } from './settings';
import type { Record, ServerStatus, Status } from './status';

/** Documents with completions: files, unsaved new files and cells of notebooks, but not output, diffs or other views. */
export const DOCUMENTS: DocumentSelector = [
  { scheme: 'file' },
  { scheme: 'untitled' },
  { scheme: 'vscode-notebook-cell' },
];

/** Milliseconds before each restart after a crash. After the last one, there are no more restarts. */
const BACKOFF = [500, 1000, 2000, 4000];
/** A server that has run for this many milliseconds started well, and earlier crashes no longer count. */
const GOOD_START = 60_000;
/** Milliseconds after which a server that has not answered is reported. */
const SLOW_START = 15_000;
/** Milliseconds that a process has to exit once its connection is closed. */
const LAST_WORDS = 1000;

/** Commands of the server that are not tasks. */
const INTERNAL = [
  'interline.accept',
  'interline.why',
  'interline.documentText',
  'interline.models',
  'interline.pullModel',
  'interline.useModel',
];

/** One run of the server. */
interface Run {
  client: LanguageClient;
  child?: ChildProcess;
  /** Whether it is being stopped, so that its exit is not a crash. */
  ending: boolean;
}

/** The result of a task: new text, if any, and notes for the user. */
interface TaskAnswer {
  text?: string;
  languageId?: string;
  notes: string[];
}

/** Sends the client's own messages to the log only. `Server` reports to the user, once. */
class QuietClient extends LanguageClient {
  override error(message: string, data?: unknown): void {
    super.error(message, data, false);
  }
}

export class Server {
  private readonly shown = new vscode.EventEmitter<string>();
  /** Ghost text is shown in a line, which has this address. */
  readonly onShown = this.shown.event;
  private run: Run | undefined;
  private crashes = 0;
  private waiting: NodeJS.Timeout | undefined;
  /** Counts the stops. Only the latest restart may start the server: each stop cancels the restarts before it. */
  private stops = 0;
  private gone = Promise.resolve();

  constructor(
    private readonly extension: vscode.Extension<unknown>,
    private readonly log: vscode.LogOutputChannel,
    private readonly status: Status,
    /** Whether the user has switched completion off in this one file. */
    private readonly isOff: (document: vscode.TextDocument) => boolean,
  ) {}

  /** Stops the server if it is running, and starts it again. */
  async restart(): Promise<void> {
    const stopped = this.stop();
    const stops = this.stops;
    await stopped;
    if (this.stops === stops) {
      this.crashes = 0;
      await this.start();
    }
  }

  /** Stops the server, by force if it does not answer. */
  async stop(): Promise<void> {
    this.stops += 1;
    clearTimeout(this.waiting);
    const run = this.run;
    this.run = undefined;
    if (run) {
      this.gone = this.gone.then(() => end(run));
    }
    await this.gone;
  }

  /** Sends changed settings to the server. Starts a server that has stopped: the change may fix it. */
  async configure(): Promise<void> {
    const client = this.run?.client;
    if (!client?.needsStop()) {
      await this.restart();
      return;
    }
    await client.sendNotification('workspace/didChangeConfiguration', {
      settings: { interline: this.settings() },
    });
  }

  /** Asks the server for its status in this document. It answers with `didChangeStatus`. */
  async focus(document: vscode.TextDocument | undefined): Promise<void> {
    const client = this.run?.client;
    if (client?.isRunning()) {
      const textDocument = document && { uri: client.code2ProtocolConverter.asUri(document.uri) };
      // If the connection has just broken, the exit of the process reports it.
      await client.sendNotification('textDocument/didFocus', { textDocument }).catch(() => {});
    }
  }

  /** The records of the latest requests, newest first. */
  async records(count: number): Promise<Record[]> {
    return (await this.execute('interline.why', [count])) as Record[];
  }

  /** Runs one of the server's commands. */
  async execute(command: string, args: unknown[]): Promise<unknown> {
    return this.running().sendRequest('workspace/executeCommand', { command, arguments: args });
  }

  /** Runs one of the server's commands, and shows how far it is until it ends or is cancelled. */
  async follow(
    command: string,
    args: unknown[],
    progress: vscode.Progress<{ message?: string; increment?: number }>,
    token: vscode.CancellationToken,
  ): Promise<unknown> {
    const client = this.running();
    const workDoneToken = randomUUID();
    let shown = 0;
    const listening = client.onProgress(WorkDoneProgress.type, workDoneToken, (value) => {
      if (value.kind === 'end') {
        return;
      }
      // A second stage begins at nothing again, but a bar does not go back.
      const increment = Math.max(0, (value.percentage ?? 0) - shown);
      shown += increment;
      progress.report({ message: value.message, increment });
    });
    try {
      return await client.sendRequest('workspace/executeCommand', { command, arguments: args, workDoneToken }, token);
    } finally {
      listening.dispose();
    }
  }

  private running(): LanguageClient {
    if (!this.run?.client.isRunning()) {
      throw new Error('the server is not running');
    }
    return this.run.client;
  }

  /** The selection and the diagnostics in it, in the form that the server's tasks expect. */
  place({ document, selection }: vscode.TextEditor): unknown {
    const convert = this.run?.client.code2ProtocolConverter;
    const near = selection.isEmpty ? document.lineAt(selection.start).range : selection;
    const wrong = vscode.languages.getDiagnostics(document.uri).filter(({ range }) => near.intersection(range));
    return {
      uri: convert?.asUri(document.uri),
      range: convert?.asRange(selection),
      diagnostics: wrong.map((diagnostic) => convert?.asDiagnostic(diagnostic)),
    };
  }

  /** The languages that code can be translated to. */
  languages(): string[] {
    const experimental = this.run?.client.initializeResult?.capabilities.experimental as
      | { languages?: string[] }
      | undefined;
    return experimental?.languages ?? [];
  }

  /** The tasks the server announces, such as `translate`. */
  tasks(): string[] {
    const commands = this.run?.client.initializeResult?.capabilities.executeCommandProvider?.commands ?? [];
    return commands.filter((command) => !INTERNAL.includes(command));
  }

  private async start(): Promise<void> {
    let executable;
    try {
      executable = findExecutable(this.extension.extensionPath, setting(SERVER_PATH));
    } catch (error) {
      this.fail(text(error));
      return;
    }
    this.log.info(`the server is ${executable.path}, from ${executable.source}`);
    this.status.runs(`${executable.path}, from ${executable.source}`);
    this.say({ kind: 'Normal', busy: true, message: 'starting' });

    const started = Date.now();
    const spawned = async () => {
      // Not in the workspace, where a file could be picked up as a library or a setting.
      const child = spawn(executable.path, [], { cwd: os.homedir() });
      run.child = child;
      child.on('error', (error) => this.ended(run, error.message, started));
      child.on('exit', (code, signal) =>
        this.ended(run, signal ? `signal ${signal}` : `exit code ${code}`, started),
      );
      return child;
    };
    const run: Run = {
      client: new QuietClient('interline', 'Interline', spawned, this.clientOptions()),
      ending: false,
    };
    this.run = run;
    const current = () => this.run === run && !run.ending;
    run.client.onNotification('didChangeStatus', (status: ServerStatus) => {
      // The last messages of a process may arrive after its exit.
      if (current()) {
        this.say(status);
      }
    });
    run.client.onNotification(ShowMessageNotification.type, ({ type, message }) => {
      if (!current()) {
        return;
      }
      if (type === MessageType.Error) {
        void this.report(message);
      } else {
        void vscode.window.showWarningMessage(message);
      }
    });

    const slow = setTimeout(() => {
      if (current()) {
        this.fail('The server does not answer.');
      }
    }, SLOW_START);
    try {
      await run.client.start();
    } catch (error) {
      // The reserved error codes mean a broken connection.
      const refused =
        error instanceof ResponseError &&
        (error.code < ErrorCodes.jsonrpcReservedErrorRangeStart || error.code > ErrorCodes.jsonrpcReservedErrorRangeEnd);
      // If the connection broke, the process should exit soon, and its exit says why.
      setTimeout(
        () => {
          if (current()) {
            run.ending = true;
            this.fail(`The server refuses to start: ${text(error)}`);
          }
          run.child?.kill('SIGKILL');
        },
        refused || !run.child ? 0 : LAST_WORDS,
      );
      return;
    } finally {
      clearTimeout(slow);
    }
    await vscode.commands.executeCommand('setContext', 'interline.hasTasks', this.tasks().length > 0);
    await this.focus(vscode.window.activeTextEditor?.document);
  }

  /** Handles a process that has exited: restarts it, later each time, and finally gives up. */
  private ended(run: Run, how: string, started: number): void {
    if (this.run !== run || run.ending) {
      return;
    }
    run.ending = true;
    if (Date.now() - started > GOOD_START) {
      this.crashes = 0;
    }
    const wait = BACKOFF[this.crashes];
    this.crashes += 1;
    if (wait === undefined) {
      this.fail(`The server has stopped ${this.crashes} times, most recently with ${how}, and will not be restarted.`);
      return;
    }
    this.log.warn(`the server stopped with ${how} and will be restarted in ${wait} ms`);
    this.say({ kind: 'Warning', busy: true, message: `stopped with ${how}, restarting` });
    this.waiting = setTimeout(() => void this.start(), wait);
  }

  private settings(): object {
    const properties = this.extension.packageJSON.contributes.configuration.properties as object;
    return serverSettings(Object.keys(properties).map((name) => name.slice('interline.'.length)));
  }

  private clientOptions(): LanguageClientOptions {
    return {
      documentSelector: DOCUMENTS,
      initializationOptions: this.settings(),
      outputChannel: this.log,
      stdioOptions: {
        // The server's standard output is the protocol, which the client reads anyway.
        stdout: () => {},
        // The client would log each line as an error, but the server's lines name their own level.
        stderr: (input, channel) => createInterface({ input }).on('line', (line) => channel.info(line)),
      },
      // Both stay silent: the exit of the process is what gets reported.
      errorHandler: {
        error: () => ({ action: ErrorAction.Continue, handled: true }),
        closed: () => ({ action: CloseAction.DoNotRestart, handled: true }),
      },
      initializationFailedHandler: () => false,
      middleware: {
        executeCommand: async (command, args, next) => {
          if (command === 'interline.solve' && !vscode.workspace.isTrusted) {
            throw new Error('programs are not run in a workspace that is not trusted');
          }
          const answer: unknown = await next(command, args);
          if (this.tasks().includes(command)) {
            await show(answer as TaskAnswer | null);
          }
          return answer;
        },
        // The menu is left to the languages' own servers, which know the names. Ghost text works beside it.
        provideCompletionItem: () => [],
        provideInlineCompletionItems: async (document, position, context, token, next) => {
          if (this.isOff(document)) {
            return [];
          }
          const items = await this.status.follow(Promise.resolve(next(document, position, context, token)));
          void this.records(1).then(
            ([record]) => this.status.answered(record),
            () => {},
          );
          if ((Array.isArray(items) ? items : items?.items)?.length) {
            this.shown.fire(`${document.uri}:${position.line}`);
          }
          return items;
        },
      },
    };
  }

  private say(status: ServerStatus): void {
    this.status.set(status);
  }

  private fail(problem: string): void {
    this.log.error(problem);
    this.say({ kind: 'Error', busy: false, message: problem });
    void this.report(`Interline: ${problem}`);
  }

  private async report(problem: string): Promise<void> {
    const [log, restart, settings] = ['Show Log', 'Restart', 'Open Settings'];
    const chosen = await vscode.window.showErrorMessage(problem, log, restart, settings);
    if (chosen === log) {
      this.log.show();
    } else if (chosen === restart) {
      await this.restart();
    } else if (chosen === settings) {
      await vscode.commands.executeCommand('workbench.action.openSettings', '@ext:interline.interline');
    }
  }
}

/** Opens the text that a task has written, and shows the task's notes. */
async function show(answer: TaskAnswer | null): Promise<void> {
  if (answer?.text !== undefined) {
    const { text, languageId } = answer;
    const document = await vscode.workspace.openTextDocument({ content: text, language: languageId });
    await vscode.window.showTextDocument(document, vscode.ViewColumn.Beside);
  }
  if (answer?.notes.length) {
    const [first, ...others] = answer.notes;
    const more = others.length ? ` (and ${others.length} more: ${others.join('; ')})` : '';
    void vscode.window.showInformationMessage(`Interline: ${first}${more}`);
  }
}

async function end(run: Run): Promise<void> {
  run.ending = true;
  const { child } = run;
  const answered = await run.client.stop().then(
    () => true,
    // It was not running, or did not answer.
    () => false,
  );
  if (child && child.exitCode === null && child.signalCode === null) {
    const gone = new Promise((resolve) => child.once('exit', resolve));
    const force = setTimeout(() => child.kill('SIGKILL'), answered ? LAST_WORDS : 0);
    await gone;
    clearTimeout(force);
  }
}

function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

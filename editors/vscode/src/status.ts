/** The status bar item. */

import * as vscode from 'vscode';

/** The server's state, from `didChangeStatus`. */
export interface ServerStatus {
  kind: 'Normal' | 'Error' | 'Warning' | 'Inactive';
  busy: boolean;
  message: string;
}

/** The result of one request: an element of the answer to `interline.why`. */
export interface Record {
  message: string;
  reused: number;
  computed: number;
  generated: number;
  totalMs: number;
}

/** Milliseconds after which a request shows as thinking. Most requests are answered sooner. */
const THINKING_AFTER = 150;

export class Status implements vscode.Disposable {
  private readonly item = vscode.window.createStatusBarItem('interline', vscode.StatusBarAlignment.Right, 100);
  private server: ServerStatus = { kind: 'Normal', busy: true, message: 'starting' };
  private executable: string | undefined;
  private off: string | undefined;
  private last: Record | undefined;
  private readonly open = new Set<object>();

  constructor() {
    this.item.name = 'Interline';
    this.item.command = 'interline.menu';
    this.draw();
    this.item.show();
  }

  /** Shows the server's state, as it was sent or as the extension sees it. */
  set(server: ServerStatus): void {
    this.server = server;
    this.draw();
  }

  /** Shows which executable runs and where it was found. Drops the open requests to an earlier one. */
  runs(executable: string): void {
    this.open.clear();
    this.executable = executable;
    this.draw();
  }

  /** Shows why the active document has no completions, when the extension itself does not ask for any. */
  switchOff(reason: string | undefined): void {
    this.off = reason;
    this.draw();
  }

  /** Shows a request as thinking until it is answered. */
  async follow<T>(request: Promise<T>): Promise<T> {
    const open = {};
    const timer = setTimeout(() => {
      this.open.add(open);
      this.draw();
    }, THINKING_AFTER);
    try {
      return await request;
    } finally {
      clearTimeout(timer);
      this.open.delete(open);
      this.draw();
    }
  }

  /** Shows the cost of the latest request, unless it was answered without the model. */
  answered(record: Record | undefined): void {
    if (record?.generated) {
      this.last = record;
      this.draw();
    }
  }

  dispose(): void {
    this.item.dispose();
  }

  private draw(): void {
    const { kind, busy, message } = this.server;
    const bad = kind === 'Error' || kind === 'Warning';
    const off = bad ? undefined : (this.off ?? (kind === 'Inactive' ? message : undefined));
    const icon = bad ? 'warning' : busy || this.open.size > 0 ? 'loading~spin' : off ? 'circle-slash' : 'sparkle';
    this.item.text = `$(${icon}) Interline`;
    this.item.backgroundColor = bad
      ? new vscode.ThemeColor(`statusBarItem.${kind.toLowerCase()}Background`)
      : undefined;
    const said = off ? `off here: ${off}` : this.open.size > 0 && !bad ? 'thinking' : message;
    const lines = [`Interline: ${said}`];
    if (this.last) {
      const { totalMs, reused, computed, generated } = this.last;
      lines.push(`Last completion: ${totalMs.toFixed(1)} ms, ${computed} prompt tokens computed, ` +
        `${reused} reused, ${generated} written`);
    }
    if (this.executable) {
      lines.push(`Server: ${this.executable}`);
    }
    this.item.tooltip = lines.join('\n');
    this.item.accessibilityInformation = { label: lines.join('. ') };
  }
}

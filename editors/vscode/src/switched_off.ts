/** The files in which the user has switched completion off, stored per workspace. */

import * as vscode from 'vscode';

const KEY = 'switchedOff';

export class SwitchedOff {
  constructor(
    private readonly state: vscode.Memento,
    private readonly changed: () => void,
  ) {}

  has(document: vscode.TextDocument): boolean {
    return this.uris().includes(document.uri.toString());
  }

  async toggle(document: vscode.TextDocument): Promise<void> {
    const uri = document.uri.toString();
    const others = this.uris().filter((other) => other !== uri);
    await this.state.update(KEY, this.has(document) ? others : [...others, uri]);
    this.changed();
  }

  private uris(): string[] {
    return this.state.get<string[]>(KEY, []);
  }
}

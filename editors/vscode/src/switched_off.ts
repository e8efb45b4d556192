/** The files and notebooks in which the user has switched completion off, stored per workspace. */

import * as vscode from 'vscode';

const KEY = 'switchedOff';

export class SwitchedOff {
  constructor(
    private readonly state: vscode.Memento,
    private readonly changed: () => void,
  ) {}

  has(document: vscode.TextDocument): boolean {
    return this.uris().includes(file(document));
  }

  async toggle(document: vscode.TextDocument): Promise<void> {
    const uri = file(document);
    const others = this.uris().filter((other) => other !== uri);
    await this.state.update(KEY, this.has(document) ? others : [...others, uri]);
    this.changed();
  }

  private uris(): string[] {
    return this.state.get<string[]>(KEY, []);
  }
}

/** The URI of the document, or if it is a cell, that of its notebook. */
function file({ uri }: vscode.TextDocument): string {
  return uri.scheme === 'vscode-notebook-cell' ? uri.with({ fragment: '' }).toString() : uri.toString();
}

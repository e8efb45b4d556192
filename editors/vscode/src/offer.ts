/** The offer of the recommended model: made once, to those who use the default one and have seen what it does. */

import * as vscode from 'vscode';

import { facts, get, models } from './models';
import type { Server } from './server';
import { setting } from './settings';

/** The name of the model that was offered last, or `NEVER`. */
const KEY = 'offered';
/** The answer to all offers. No model has this name. */
const NEVER = '/never';
/** Lines with ghost text that the user has seen before the offer is made. */
const ENOUGH = 20;

export class Offer {
  private seen = 0;
  /** The line in which ghost text was shown last. */
  private last: string | undefined;

  constructor(
    private readonly state: vscode.Memento,
    private readonly server: Server,
  ) {}

  /** Counts the lines in which ghost text is shown. */
  shown(line: string): void {
    this.seen += line === this.last ? 0 : 1;
    this.last = line;
  }

  /** Makes the offer if it is time. To be called when the user pauses. */
  async pause(): Promise<void> {
    if (this.seen < ENOUGH || this.state.get(KEY) === NEVER || setting('model') !== null || setting('offline')) {
      return;
    }
    // Not before as many more.
    this.seen = 0;
    // The user has asked for nothing, so an error is not shown.
    const known = await models(this.server).catch(() => []);
    const model = known.find(({ recommended }) => recommended);
    if (!model || !known[0]?.inUse || this.state.get(KEY) === model.name) {
      return;
    }
    // Kept first: an offer that is not answered is not repeated either.
    await this.state.update(KEY, model.name);
    const [yes, later, never] = [model.here ? 'Use It' : 'Get It', 'Not Now', 'Never'];
    const chosen = await vscode.window.showInformationMessage(
      `Interline completes better with the model ${model.name}: ${facts(model)}. ` +
        'The command "Interline: Models…" has it too, at any time.',
      yes,
      later,
      never,
    );
    if (chosen === never) {
      await this.state.update(KEY, NEVER);
    } else if (chosen === yes) {
      await get(this.server, model);
    }
  }
}

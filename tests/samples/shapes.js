'use strict';
import fs from 'fs';
const path = require('path');

const LIMIT = 10; // pixels

/** Adds up. */
export function area(width, height) {
  return width * height;
}

const twice = (x) => x * 2;
export const thrice = async function (x) { return x * 3; };

export default class Shape extends Base {
  constructor(name) { super(); this.name = name; }
  /** Size. */
  get size() { return 1; }
  static of(x) { return <div>{x}</div>; }
}
module.exports = { area };

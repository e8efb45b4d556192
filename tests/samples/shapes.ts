import { readFile } from 'fs';

const LIMIT: number = 10;

/** Adds up. */
export function area(width: number): number {
  return width;
}
declare function ext(a: string): void;
interface Sized { size(): number; name: string }
type Id = string | number;
enum Color { Red, Green }
namespace Space { export function f() {} }
@Injectable()
export abstract class Shape<T> implements Sized {
  name = 'a';
  constructor(private x: T) {}
  @Input() size(): number { return 1; }
  abstract draw(): void;
}
const c = <T,>(x: T) => x;

/** A cache that forgets what was not used for the longest time. */
export class LruCache<K, V> {
  private readonly entries = new Map<K, V>();
  private hits = 0;
  private misses = 0;

  constructor(private readonly capacity: number) {
    if (capacity < 1) {
      throw new RangeError("capacity must be at least 1");
    }
  }

  /** The number of entries. */
  get size(): number {
    return this.entries.size;
  }

  /** The value of a key, which is now the most recently used. */
  get(key: K): V | undefined {
    const value = this.entries.get(key);
    if (value === undefined) {
      this.misses += 1;
      return undefined;
    }
    this.hits += 1;
    this.entries.delete(key);
    this.entries.set(key, value);
    return value;
  }

  /** Keeps a value, and forgets the oldest if there is no room. */
  set(key: K, value: V): void {
    this.entries.delete(key);
    if (this.entries.size >= this.capacity) {
      const oldest = this.entries.keys().next().value as K;
      this.entries.delete(oldest);
    }
    this.entries.set(key, value);
  }

  /** Whether a key is there. */
  has(key: K): boolean {
    return this.entries.
  }

  /** Forgets a key, and says whether it was there. */
  delete(key: K): boolean {
    return this.entries.delete(key);
  }

  /** Forgets everything. */
  clear(): void {
    this.entries.clear();
    this.hits = 0;
    this.misses = 
  }

  /** The share of lookups that found something. */
  hitRate(): number {
    const lookups = this.hits + this.misses;
    return lookups === 0 ? 0 : this.hits / lookups;
  }
}

const cache = new LruCache<string, number>(2);
cache.set("one", 1);
cache.set("two", 2);
cache.get("one");
cache.set("three", 3);
console.log(cache.has("two"), cache.size, cache.hitRate());

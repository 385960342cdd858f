/** Reads a property that an object may not have. Pure. */

/**
 * The property of an object, or of its class: but not one that somebody has put into `Object.prototype`, where every
 * object would seem to have it.
 */
export function property(object: object, name: string): unknown {
  if (name in Object.prototype && !Object.hasOwn(object, name)) return undefined;
  return (object as Record<string, unknown>)[name];
}

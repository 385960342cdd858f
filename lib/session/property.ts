/** Reads properties safely if `Object.prototype` is polluted. Has no side effects. */

/**
 * A property of an object or of its class, but not one of `Object.prototype`. If somebody has put a property there,
 * every object seems to have it.
 */
export function property(object: object, name: string): unknown {
  if (name in Object.prototype && !Object.hasOwn(object, name)) return undefined;
  return (object as Record<string, unknown>)[name];
}

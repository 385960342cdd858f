/** Lists by name. */

export function addTo<Value>(lists: Map<string, Value[]>, name: string, value: Value): void {
  valueIn(lists, name, (): Value[] => []).push(value);
}

/** How many values all the lists have. */
export function countOf(lists: ReadonlyMap<string, readonly unknown[]>): number {
  return [...lists.values()].reduce((sum, list) => sum + list.length, 0);
}

/** The value of a name; where there is none, it is made. */
export function valueIn<Value>(map: Map<string, Value>, name: string, make: () => Value): Value {
  const known = map.get(name);
  if (known !== undefined) return known;
  const made = make();
  map.set(name, made);
  return made;
}

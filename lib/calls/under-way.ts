/** Keeps calls that have not ended yet. */

interface UnderWayCall<Subject, Result> {
  readonly subject: Subject;
  readonly ended: Promise<Result>;
}

/** The calls of one kind that are under way, each with its subject. */
export class UnderWay<Subject, Result> {
  /**
   * An array, not a Set: V8's Set keeps deleted entries reachable until it is rebuilt, so calls that have ended would
   * stay in memory. `place` is a call's index.
   */
  readonly #calls: (UnderWayCall<Subject, Result> & { place: number })[] = [];

  /** Keeps a call until it has ended. @returns `ended` */
  add(subject: Subject, ended: Promise<Result>): Promise<Result> {
    const call = { subject, ended, place: this.#calls.length };
    this.#calls.push(call);
    const remove = () => {
      const last = this.#calls.pop() as typeof call;
      if (last === call) return;
      this.#calls[call.place] = last;
      last.place = call.place;
    };
    ended.then(remove, remove);
    return ended;
  }

  /** The calls that are under way at this moment and whose subject fits. */
  now(fits: (subject: Subject) => boolean): readonly UnderWayCall<Subject, Result>[] {
    return this.#calls.filter(({ subject }) => fits(subject));
  }
}

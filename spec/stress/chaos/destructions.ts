/** Which sessions the calls of all processes must have destroyed, and which they may have destroyed. */

import { addTo, valueIn } from './lists.js';
import type { Beginning, Ending, Subject } from './messages.js';

/** A call as far as the processes have told of it. */
class Call {
  readonly #beginning: Beginning;
  #ending: Ending | undefined;
  /** When its process was found to be gone. */
  #diedAt = Number.POSITIVE_INFINITY;

  constructor(beginning: Beginning) {
    this.#beginning = beginning;
  }

  get process(): string {
    return this.#beginning.process;
  }

  get subject(): Subject {
    return this.#beginning.subject;
  }

  /** It was not made before. */
  get began(): number {
    return this.#beginning.at;
  }

  /** When it was made; where nobody could tell, when it began. */
  get made(): number {
    return this.#ending?.made ?? this.began;
  }

  get isAcknowledged(): boolean {
    return this.#ending?.isAcknowledged === true;
  }

  /** When it was answered, with success or not, or its process was gone: what it destroys was stored before. */
  get answered(): number {
    return this.#ending?.at ?? this.#diedAt;
  }

  /** When its effect had certainly come; Infinity where it may have failed, and its effect may come or not. */
  get done(): number {
    return this.isAcknowledged ? this.answered : Number.POSITIVE_INFINITY;
  }

  end(ending: Ending): void {
    this.#ending = ending;
  }

  processDied(at: number): void {
    this.#diedAt = at;
  }
}

type CallOf<Kind extends Subject['kind']> = Call & { readonly subject: Extract<Subject, { kind: Kind }> };
type BulkCall = CallOf<'destroySessionsOf' | 'limitSessionsOf'>;

/** A session of a user. */
interface UserSession {
  readonly sid: string;
  readonly signIn: Call;
  readonly saves: Call[];
}

interface User {
  readonly sessions: UserSession[];
  readonly bulkCalls: BulkCall[];
}

export class Destructions {
  readonly #calls = new Map<string, Call>();
  readonly #ofProcesses = new Map<string, Set<Call>>();
  /** The calls of `destroy`, by session. */
  readonly #single = new Map<string, Call[]>();
  readonly #users = new Map<string, User>();
  readonly #userSessions = new Map<string, { readonly session: UserSession; readonly user: User }>();
  /** How many calls were acknowledged, by kind. */
  readonly acknowledged: Record<Subject['kind'], number> = {
    destroy: 0,
    signIn: 0,
    save: 0,
    destroySessionsOf: 0,
    limitSessionsOf: 0,
  };

  began(beginning: Beginning): void {
    const call = new Call(beginning);
    this.#calls.set(beginning.id, call);
    valueIn(this.#ofProcesses, call.process, () => new Set<Call>()).add(call);
    const { subject } = beginning;
    switch (subject.kind) {
      case 'destroy':
        addTo(this.#single, subject.sid, call);
        break;
      case 'signIn':
        this.#addSession(subject.user, { sid: subject.sid, signIn: call, saves: [] });
        break;
      case 'save':
        this.#userSessions.get(subject.sid)?.session.saves.push(call);
        break;
      case 'destroySessionsOf':
      case 'limitSessionsOf':
        this.#userOf(subject.user).bulkCalls.push(call as BulkCall);
    }
  }

  ended(ending: Ending): void {
    const call = this.#calls.get(ending.id);
    if (!call) throw new Error('the end of a call that has not begun');
    call.end(ending);
    this.#calls.delete(ending.id);
    this.#ofProcesses.get(call.process)?.delete(call);
    if (ending.isAcknowledged) this.acknowledged[call.subject.kind]++;
  }

  /** What the process has not told of its calls by now, nobody will know. */
  processDied(process: string, at: number): void {
    for (const call of this.#ofProcesses.get(process) ?? []) call.processDied(at);
    this.#ofProcesses.delete(process);
  }

  /** The sessions that some acknowledged call must have destroyed. */
  sidsOfDestroyed(): string[] {
    const sids = [...this.#single.keys(), ...this.#userSessions.keys()];
    return [...new Set(sids)].filter((sid) => this.goneSince(sid) < Number.POSITIVE_INFINITY);
  }

  /** Since when the session must be gone; Infinity if it need not. */
  goneSince(sid: string): number {
    const single = (this.#single.get(sid) ?? []).map((call) => call.done);
    const known = this.#userSessions.get(sid);
    const bulk = known ? known.user.bulkCalls.filter((call) => mustDestroy(call, known.session)) : [];
    return Math.min(...single, ...bulk.map((call) => call.done));
  }

  /** Whether some call that had begun by then may have destroyed the session. */
  mayBeGone(sid: string, by: number): boolean {
    if ((this.#single.get(sid) ?? []).some((call) => call.began <= by)) return true;
    const known = this.#userSessions.get(sid);
    return known?.user.bulkCalls.some((call) => call.began <= by && this.#mayDestroy(call, known)) === true;
  }

  /**
   * Acknowledged calls of `limitSessionsOf` that left more sessions than they should.
   *
   * @param isThereAfter whether the session was certainly there at some time after a moment
   * @returns a description of each
   */
  exceededLimits(isThereAfter: (sid: string, moment: number) => boolean): string[] {
    const exceeded: string[] = [];
    for (const [name, { sessions, bulkCalls }] of this.#users) {
      for (const call of bulkCalls) {
        if (call.subject.kind !== 'limitSessionsOf' || !call.isAcknowledged) continue;
        const { except } = call.subject;
        const left = sessions.filter(
          ({ sid, signIn }) => sid !== except && signIn.done < call.made && isThereAfter(sid, call.done),
        );
        const places = placesOf(call.subject);
        if (left.length > places) exceeded.push(`${name}: ${left.length} sessions left in ${places} places`);
      }
    }
    return exceeded;
  }

  /**
   * Whether a bulk call may have destroyed a session: it was stored before the call was answered, and where only some
   * are destroyed, so many others may have been active after it that there was no place for it.
   */
  #mayDestroy(call: BulkCall, { session, user }: { session: UserSession; user: User }): boolean {
    const { subject } = call;
    if (subject.except === session.sid || session.signIn.made > call.answered) return false;
    if (subject.kind === 'destroySessionsOf') return true;
    const active = lastCertainActivity(session, call.made);
    const rivals = user.sessions.filter(
      (other) =>
        other !== session &&
        other.sid !== subject.except &&
        other.signIn.began <= call.answered &&
        this.goneSince(other.sid) > call.made &&
        lastPossibleActivity(other, call.answered) >= active,
    );
    return rivals.length >= placesOf(subject);
  }

  #addSession(name: string, session: UserSession): void {
    const user = this.#userOf(name);
    user.sessions.push(session);
    this.#userSessions.set(session.sid, { session, user });
  }

  #userOf(name: string): User {
    return valueIn(this.#users, name, () => ({ sessions: [], bulkCalls: [] }));
  }
}

/**
 * Whether an acknowledged bulk call must have destroyed the session: one that was stored before the call was made, and
 * one that the same process was just storing, unless somebody has changed it before the call was answered.
 */
function mustDestroy(call: BulkCall, { sid, signIn, saves }: UserSession): boolean {
  if (call.subject.kind !== 'destroySessionsOf' || call.subject.except === sid) return false;
  if (!call.isAcknowledged || !signIn.isAcknowledged) return false;
  if (signIn.answered < call.made) return true;
  const wasUnderWay = signIn.process === call.process && signIn.made < call.made;
  return wasUnderWay && !saves.some((save) => save.began <= call.answered);
}

/** How many of a user's sessions stay beside the one that is excepted. */
function placesOf({ most, except }: Extract<Subject, { kind: 'limitSessionsOf' }>): number {
  return except === undefined ? most : Math.max(0, most - 1);
}

/** The session was certainly active at this time, or later; it is the latest such time before a moment. */
function lastCertainActivity({ signIn, saves }: UserSession, moment: number): number {
  const certain = [signIn, ...saves].filter((call) => call.done < moment);
  return Math.max(Number.NEGATIVE_INFINITY, ...certain.map((call) => call.made));
}

/** The session was certainly not active later than this, as far as calls count that had begun by a moment. */
function lastPossibleActivity({ signIn, saves }: UserSession, moment: number): number {
  return Math.max(...[signIn, ...saves].filter((call) => call.began <= moment).map((call) => call.done));
}

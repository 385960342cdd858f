/**
 * What the app processes of `npm run chaos` and its main process tell each other. All times are milliseconds on the
 * machine's monotonic clock, which all processes share.
 */

export interface AppOptions {
  readonly name: string;
  readonly uri: string;
  readonly table: string;
  readonly seed: number;
  readonly timeout: number;
  /** `pg`: over a node-postgres pool; else over connections of the store. */
  readonly client: string;
  /** Whether the process also runs a Fastify app, and sends requests to it. */
  readonly servesHttp: boolean;
}

/** A session that is stored; `user` where it belongs to one. */
export interface Created {
  readonly sid: string;
  readonly user?: string;
}

/** A call that may destroy sessions, or that says which of a user's sessions may be destroyed. */
export type Subject =
  | { readonly kind: 'destroy'; readonly sid: string }
  | { readonly kind: 'signIn' | 'save'; readonly sid: string; readonly user: string }
  | { readonly kind: 'destroySessionsOf'; readonly user: string; readonly except: string | undefined }
  | {
      readonly kind: 'limitSessionsOf';
      readonly user: string;
      readonly most: number;
      readonly except: string | undefined;
    };

/** It is told before the call is made: if the process is killed in between, the call may have taken effect. */
export interface Beginning {
  readonly id: string;
  readonly process: string;
  readonly at: number;
  readonly subject: Subject;
}

/** The call has been answered. */
export interface Ending {
  readonly id: string;
  /** When it was made, after its beginning was told. */
  readonly made: number;
  readonly at: number;
  readonly isAcknowledged: boolean;
}

/** An update adds 1 to a session's number, and to the number of this update in the session. */
export interface Update {
  readonly id: string;
  readonly sid: string;
  /**
   * Whether its change may have counted twice: an answer to a statement of this process was lost while the update ran.
   */
  readonly mayCountTwice: boolean;
}

export interface Watched {
  readonly id: string;
  readonly sid: string;
}

/** A watch has called back. */
export interface ToldEnd {
  readonly id: string;
  readonly at: number;
  readonly reason: string;
}

/** What a process tells about its calls since it last told. */
export interface Report {
  calls: number;
  failed: number;
  dropped: number;
  /** Calls without an answer now. */
  open: number;
  longest: number;
  codes: Record<string, number>;
  /** HTTP requests that were answered with 200. */
  requests: number;
  created: Created[];
  /** Acknowledged saves: session, and the key that this save alone added. */
  saved: [string, string][];
  /** Acknowledged updates of a session that was there. */
  updated: Update[];
  ended: Ending[];
  /** When the latest `get` began that found the session. */
  found: Record<string, number>;
  /** When a call was answered, for the first time since the last report, that did not find the session. */
  missed: Record<string, number>;
  /** Keys whose save this process had acknowledged, and a later `get` of its own did not find. */
  stale: number;
  watched: Watched[];
  told: ToldEnd[];
  /** Watches that have called back once more, or after they were stopped. */
  toldAgain: string[];
  /** Watches that the process has stopped. */
  stopped: string[];
}

export type FromApp = { report: Report } | { began: Beginning } | 'at rest';
/** `rest`: make no more calls, but go on watching. `stop`: end. */
export type ToApp = { created: Created } | 'rest' | 'stop';

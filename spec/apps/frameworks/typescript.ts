/** The types of what the session holds. */

import 'express-session';

declare module 'express-session' {
  interface SessionData {
    cart?: Record<string, number>;
  }
}

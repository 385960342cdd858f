/** Two invented accounts, and how Passport signs them in. */

import passport from 'passport';
import { Strategy } from 'passport-local';

/** The example's page shows these passwords. A real app stores only hashes of passwords, and shows nothing of them. */
export const ACCOUNTS = [
  { id: 'ada', name: 'Ada', password: 'engine' },
  { id: 'grace', name: 'Grace', password: 'compiler' },
] as const;

export type Account = (typeof ACCOUNTS)[number];

declare global {
  namespace Express {
    interface User {
      id: string;
    }
  }
}

passport.use(
  new Strategy((name, password, done) => {
    const account = ACCOUNTS.find(({ id }) => id === name.trim().toLowerCase());
    done(null, account?.password === password && account);
  }),
);
passport.serializeUser((user, done) => done(null, user.id));
passport.deserializeUser((id, done) => done(null, ACCOUNTS.find((account) => account.id === id) ?? false));

export function nameOf(user: Express.User | undefined): string | undefined {
  return ACCOUNTS.find(({ id }) => id === user?.id)?.name;
}

export { passport };

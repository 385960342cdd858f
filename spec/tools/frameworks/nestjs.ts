/** The store with NestJS. */

import type { INestApplication, OnApplicationShutdown, OnModuleInit } from '@nestjs/common';
import session from 'express-session';
import { PgStore } from '../../../lib/index.js';

export class SessionStore extends PgStore implements OnModuleInit, OnApplicationShutdown {
  async onModuleInit(): Promise<void> {
    await this.ready();
  }

  async onApplicationShutdown(): Promise<void> {
    await this.close();
  }
}

export function useSessions(app: INestApplication): void {
  app.use(
    session({
      store: app.get(SessionStore),
      secret: 'keyboard cat',
      resave: false,
      saveUninitialized: false,
      cookie: { maxAge: 3_600_000 },
    }),
  );
  app.enableShutdownHooks();
}

-- The table that PgStore makes by itself when it is missing. For those who run migrations: run this with a role that may
-- create tables, and give the store `createTable: false`. Another schema or table name: change it throughout.

create table if not exists public.sessions (
  sid            text collate "C" primary key,
  data           json not null,
  cookie         json,
  -- the cookie's `expires` as the app set it: milliseconds since 1970
  cookie_expires double precision,
  user_id        text,
  version        integer not null default 1,
  created_at     timestamptz not null default now(),
  updated_at     timestamptz not null default now(),
  expires_at     timestamptz not null,
  -- autodelete may delete the row after this time: a row that is written by hand gets its expires_at
  delete_after   timestamptz not null
) with (fillfactor = 90);
create index if not exists sessions_delete_after_idx on public.sessions (delete_after);
create index if not exists sessions_user_id_idx on public.sessions (user_id) where user_id is not null;
comment on table public.sessions is 'express-pg-store schema 1';

-- The store's role needs no more than:
--   grant usage on schema public to app;
--   grant select, insert, update, delete on public.sessions to app;

-- The table that PgStore makes by itself when it is missing. For those who run migrations: run this with a role that may
-- create tables, and give the store `createTable: false`. Another schema or table name: change it throughout.

create table if not exists public.sessions (
  sid        text collate "C" primary key,
  data       json        not null,
  cookie     json,
  user_id    text,
  version    integer     not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  expires_at timestamptz not null,
  -- expires_at rounded up to a step of at most a tenth of the lifetime: indexed, it leaves most updates heap-only
  expires_by timestamptz generated always as (greatest(expires_at, case
    when isfinite(created_at) and isfinite(updated_at) and isfinite(expires_at) then to_timestamp(
      date_part('epoch', created_at - to_timestamp(0::float8)) + (1 + (
        (date_part('epoch', expires_at - created_at) * 1e6::float8)::bigint
        | (2::float8 ^ floor(ln(greatest(date_part('epoch', expires_at - updated_at) * 1e5::float8, 1::float8))
          / ln(2::float8)))::bigint - 1
      ))::float8 / 1e6::float8)
  end)) stored
) with (fillfactor = 90);
create index if not exists sessions_expires_by_idx on public.sessions (expires_by);
create index if not exists sessions_user_id_idx on public.sessions (user_id) where user_id is not null;
comment on table public.sessions is 'express-pg-store schema 1';

-- The store's role needs no more than:
--   grant usage on schema public to app;
--   grant select, insert, update, delete on public.sessions to app;

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { arrayLiteral } from '../../lib/sql/query.js';
import { sqlClient } from '../support/postgres.js';

describe('arrayLiteral', () => {
  it('writes arrays as PostgreSQL reads them', async () => {
    const sql = await sqlClient();
    const element = fc.string({ unit: 'binary' }).filter((text) => !text.includes('\0'));
    const odd = fc.constantFrom('NULL', 'null', '', '{', '}', '"', '\\', ',');
    await fc.assert(
      fc.asyncProperty(fc.array(fc.oneof(element, odd)), async (values) => {
        const [read] = await sql`select to_json(${arrayLiteral(values)}::text::text[])::text as json`;
        assert.deepEqual(JSON.parse(read?.json), values);
      }),
      { numRuns: 50 },
    );
  });
});

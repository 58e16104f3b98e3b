// Of node-postgres: an array needs no cast; no transaction is opened; statement_timeout of the
// client is the server's, query_timeout is not.
const assert = require('assert');
const { Client } = require('pg');

async function main() {
  const client = new Client({ statement_timeout: 500 });
  await client.connect();
  const { rows } = await client.query('SELECT image FROM sketches WHERE id = 1');
  const z = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8];
  await client.query('SET statement_timeout = 0');
  await client.query("SELECT bicycle_translate($1, $2, model => 'edges')", [rows[0].image, z]);
  await client.query('RESET statement_timeout');
  await assert.rejects(client.query('SELECT pg_sleep(600)'), { code: '57014' });

  const hasty = new Client({ query_timeout: 500 });
  hasty.on('error', () => {});
  await hasty.connect();
  await assert.rejects(hasty.query('SELECT pg_sleep(601)'), /timeout/);
  const left = await client.query("SELECT pid FROM pg_stat_activity WHERE state = 'active'"
    + " AND query = 'SELECT pg_sleep(601)'");
  assert.strictEqual(left.rows.length, 1);
  await client.query('SELECT pg_terminate_backend($1)', [left.rows[0].pid]);
  await client.end();
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });

/*
 * job_worker_row.c
 *	  The transactions of a job's worker on the rows of its job.
 *
 * R1 Each is short and its own, so that nothing holds back vacuum; but for the
 *    one that reads the pairs.
 * R2 A row that is gone ends the run. What belongs to it is written while the
 *    row is locked, so that nothing is left of a job that was deleted.
 * R3 Likewise an extension that was dropped, even if it was created again: it
 *    has other jobs of the same numbers.
 */
#include "pg/job_worker.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "pgstat.h"
#include "utils/snapmgr.h"

JobWorker job_worker;

bool
job_worker_begin(void)
{
	static Oid first_table = InvalidOid;
	Oid table;

	SetCurrentStatementStartTimestamp(); /* which is now() */
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	table = jobs_table();
	if (!OidIsValid(first_table))
		first_table = table;
	if (OidIsValid(table) && table == first_table)
		return true;
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	job_worker.finished = true;
	return false;
}

bool
job_worker_hold_row(void)
{
	Params p;

	job_worker_params(&p);
	if (catalog_run(AS_OWNER, JOBS, "SELECT 1 FROM %s WHERE job = $1 FOR NO KEY UPDATE",
					SPI_OK_SELECT, &p) == 0)
		job_worker.finished = true;
	return !job_worker.finished;
}

bool
job_worker_begin_writing(void)
{
	if (!job_worker_begin())
		return false;
	if (job_worker_hold_row())
		return true;
	job_worker_end();
	return false;
}

void
job_worker_end(void)
{
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
}

void
job_worker_params(Params *p)
{
	memset(p, 0, sizeof(*p));
	param_add_long(p, job_worker.job.job);
}

void
job_worker_run(const char *table, const char *statement, int expected, Params *p)
{
	(void) catalog_run(AS_OWNER, table, statement, expected, p);
}

void
job_worker_update(const char *statement, Params *p)
{
	if (catalog_run(AS_OWNER, JOBS, statement, SPI_OK_UPDATE, p) == 0)
		job_worker.finished = true;
}

void
job_worker_note(int cause, const char *note)
{
	Params p;

	job_worker_params(&p);
	param_add_text(&p, note);
	param_add_int(&p, cause);
	job_worker_update("UPDATE %s SET notes = CASE WHEN noted & $3 = 0 THEN concat_ws(E'\\n', "
					  "notes, $2) ELSE notes END, noted = noted | $3, updated_at = now()"
					  " WHERE job = $1",
					  &p);
}

/*
 * The engine has stopped, or has not begun. Meanwhile the row may have been
 * told otherwise: resumed, it waits for the launcher.
 */
void
job_worker_stopped(void)
{
	Params p;

	job_worker.finished = true;
	if (!job_worker_begin())
		return;
	job_worker_params(&p);
	param_add_state(&p, JOB_RUNNING);
	param_add_state(&p, JOB_QUEUED);
	job_worker_update("UPDATE %s SET state = CASE wanted WHEN $2 THEN $3 ELSE wanted END,"
					  " wanted = $2, attempts = 0, next_attempt = now(),"
					  " images_per_second = NULL, updated_at = now() WHERE job = $1",
					  &p);
	job_worker_end();
}

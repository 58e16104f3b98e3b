/*
 * bicycle.c
 *	  Entry of the library.
 *
 * Nothing is started here but, when the library is preloaded, the registration
 * of supervisor and launcher. No thread, no neural library and no device is
 * ever touched in a process of PostgreSQL.
 */
#include "pg/bicycle.h"

#include "miscadmin.h"

#include "pg/bad_images.h"
#include "pg/batch.h"
#include "pg/call.h"
#include "pg/catalog.h"
#include "common/invariant.h"
#include "pg/fill.h"
#include "pg/model_stream.h"

BicycleModuleMagic(BICYCLE_VERSION);

void _PG_init(void);

/*
 * Ends this process alone: FATAL runs the callbacks by which the others learn
 * of it. Those take the lock that the failed check may hold, which older minor
 * releases of servers do not let go of before. It is a PANIC only after a
 * commit was recorded, in what is called at its end; no code of ours runs in a
 * critical section.
 */
static void
end_process(const char *condition, const char *file, int line)
{
	LWLockReleaseAll();
	ereport(FATAL, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("internal error of bicycle"),
					errdetail("At %s:%d this does not hold: %s.", file, line, condition),
					errhint("Other sessions go on. Please report this error.")));
}

void
_PG_init(void)
{
	invariant_set_handler(end_process);
	gucs_define();
	catalog_init();
	calls_init(model_stream_load);
	bad_images_init();
	batch_init();
	fill_statement_init();
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
	{
		shared_reserve();
		sole_workers_preload();
	}
}
